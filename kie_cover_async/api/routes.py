"""What a route is made of: the requests that differ from one family of endpoints to the other."""

from collections.abc import Callable

from kie_cover_async.models import CoverDetails

from .requests import Request


class Route:
    """A family of endpoints that makes covers.

    :param poll: the request for the record of a cover's task id.
    :param submit: the request for a new cover, of a song's task id and a callback URL.
    """

    __slots__ = ("name", "poll", "submit")

    def __init__(
        self,
        name: str,
        *,
        poll: Callable[[str], Request[CoverDetails]],
        submit: Callable[[str, str], Request[str]],
    ) -> None:
        self.name: str = name
        self.poll: Callable[[str], Request[CoverDetails]] = poll
        self.submit: Callable[[str, str], Request[str]] = submit

    def __repr__(self) -> str:
        return f"<Route {self.name}>"
