"""`CoverClient`: the public methods, composed of the modules below."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Self

import aiohttp
from yarl import URL

from .api import CREDITS, download_url
from .bulk import OutcomeStream, Pool, TaskIds
from .descriptors import affordable
from .errors import CoverAlreadyExistsError
from .events import Observer
from .inbox import Inbox, validate_inbox
from .ledger import Api
from .models import CoverDetails
from .polling import OnTaskId, OnUpdate, Poller, WaitOptions
from .rate_limiter import RateLimiter
from .retry import RetryPolicy
from .schedule import ExponentialSchedule, Schedule
from .settings import (
    resolve_api_key,
    resolve_base_url,
    resolve_route,
    resolve_user_agent,
    validate_schedule,
    validate_session,
)
from .transport import HttpClient, Throttle, Transport, share_places
from .validation import (
    Network,
    parse_networks,
    short_repr,
    validate_callable,
    validate_http_url,
    validate_number,
    validate_task_id,
)

if TYPE_CHECKING:
    from .transport.downloader import ImageDownloader

_log = logging.getLogger(__name__)

# The vendor accepts 20 new jobs of a key in ten seconds, by whichever kind of window it counts.
_SUBMIT_RATE = partial(RateLimiter, 19, per=10.0)


class CoverClient:
    """An asyncio client for the cover images of KIE.ai's Suno API.

    Make one for each event loop and share it: its calls share connections, a rate limiter and
    their polls of the same id. Close it with `async with` or `aclose()`.

    Args:
        api_key: `None` reads `KIE_API_KEY` from the environment. No repr, log or error shows it.
        route: `"suno"` or `"market"`: the vendor's older or newer API for the same covers. `None`
            reads `KIE_ROUTE`, else it is `"suno"`.
        base_url: With or without a trailing `/api/v1`. `None` reads `KIE_BASE_URL`, else it is
            `https://api.kie.ai`.
        allow_http: Accept plain http for hosts other than loopback.
        session: An external session, with its proxies, TLS and pool; it is neither closed nor
            altered.
        request_timeout: Seconds for a poll, including its body but not the time in queues; also
            for credits, download links, and each pause in an image's download.
        submit_timeout: Seconds for a submit. It is longer, because a lost answer costs credits.
        submit_connect_timeout: Seconds of `submit_timeout` that connecting may take.
        retry: How often a single call is retried after a passing failure, and the pauses of calls
            and waits.
        schedule: When waits poll again; any object with a method `delay(age, pressure)`.
        rate_limiter: How often to send requests other than submits. `None` is nine a second, so
            that the server never counts more than the ten a second that the vendor allows. Give
            the same one to all clients that share a key.
        submit_rate_limiter: How often to submit. `None` is 19 in ten seconds, since the vendor
            accepts 20 new jobs in that time. Share it in the same way.
        max_concurrent_requests: How many requests other than submits may be in flight.
        max_concurrent_submits: How many submits may be in flight. A small pool of an external
            session lowers both limits, and so does a low limit of open files (`ulimit -n`), with
            a warning. A fifth of the connections is then for submits.
        allow_image_networks: Networks such as `"198.18.0.0/15"` that images may come from although
            they are not public: some proxies and VPNs resolve each name to such an address.
        user_agent: `None` names this package. Some of the vendor's hosts answer unusual ones with
            a 403.
        inbox: A `CallbackInbox`, whose callbacks wake waits, so that these poll less often.
        observer: Called with each event of `kie_cover_async.events`; one callable or several.

    Raises:
        TypeError, ValueError: An argument cannot be used; the message names it.

    Example:
        >>> async with CoverClient() as client:  # the key comes from KIE_API_KEY
        ...     details = await client.wait_for_cover("first-cover", timeout=600.0)
        >>> details.state.value, len(details.images)
        ('SUCCESS', 2)
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        route: str | None = None,
        base_url: str | URL | None = None,
        allow_http: bool = False,
        session: aiohttp.ClientSession | None = None,
        request_timeout: float = 10.0,
        submit_timeout: float = 60.0,
        submit_connect_timeout: float = 10.0,
        retry: RetryPolicy = RetryPolicy(),
        schedule: Schedule = ExponentialSchedule(),
        rate_limiter: RateLimiter | None = None,
        submit_rate_limiter: RateLimiter | None = None,
        max_concurrent_requests: int = 100,
        max_concurrent_submits: int = 20,
        allow_image_networks: Iterable[str | Network] = (),
        user_agent: str | None = None,
        inbox: Inbox | None = None,
        observer: Observer | Iterable[Observer] | None = None,
    ) -> None:
        validate_number("request_timeout", request_timeout, above=0)
        validate_number("submit_timeout", submit_timeout, above=0)
        validate_number("submit_connect_timeout", submit_connect_timeout, above=0)
        validate_number("max_concurrent_requests", max_concurrent_requests, at_least=1, whole=True)
        validate_number("max_concurrent_submits", max_concurrent_submits, at_least=1, whole=True)
        self._route = resolve_route(route)
        self._base_url = resolve_base_url(base_url, allow_http=allow_http)
        http_client = HttpClient(
            self._base_url,
            resolve_api_key(api_key),
            session=validate_session(session),
            request_timeout=request_timeout,
            submit_timeout=submit_timeout,
            submit_connect_timeout=submit_connect_timeout,
            user_agent=resolve_user_agent(user_agent),
        )
        wanted = max_concurrent_requests + max_concurrent_submits
        connections = affordable(min(wanted, http_client.connection_limit or wanted), "requests")
        polls, submits = share_places(connections, max_concurrent_requests, max_concurrent_submits)
        self._max_concurrent_requests = polls.limit
        self._transport = Transport(
            http_client=http_client,
            polls=Throttle(polls, _limiter("rate_limiter", rate_limiter, RateLimiter)),
            submits=Throttle(
                submits, _limiter("submit_rate_limiter", submit_rate_limiter, _SUBMIT_RATE)
            ),
            retry=retry,
            observers=observer,
        )
        self._while_open = self._transport.open_calls.scope
        self._image_networks = parse_networks("allow_image_networks", allow_image_networks)
        self._downloader: ImageDownloader | None = None
        self._schedule = validate_schedule(schedule)
        self._poller = Poller(self._transport, self._route, validate_inbox(inbox))

    def __repr__(self) -> str:
        state = "closed" if self._transport.open_calls.closed else "open"
        return f"<CoverClient {self._base_url} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End running calls with `ClientClosedError`; close the session unless it is external."""
        await self._transport.aclose()

    @property
    def downloader(self) -> "ImageDownloader":
        """The client without credentials, which fetches images; a `CoverArchive` uses it."""
        if self._downloader is None:
            # A client that only polls does not load it.
            from .transport.downloader import ImageDownloader  # noqa: PLC0415

            self._downloader = ImageDownloader(self._transport, self._image_networks)
        return self._downloader

    @property
    def api(self) -> Api:
        """The route and the origin that issue this client's ids."""
        return Api(route=self._route.name, origin=str(self._base_url.origin()))

    @property
    def rate_limiter(self) -> RateLimiter:
        """The rate limiter in use."""
        return self._transport.polls.limiter

    async def get_cover_details(self, task_id: str) -> CoverDetails:
        """Return the status of a cover job, by one poll, retried as the retry policy allows.

        `task_id` is the cover task's own id, not the song's.

        Raises:
            TaskNotFoundError: The API has no record of the id. It also says so for a few moments
                after a job was created.
        """
        return await self._poller.fetch(task_id)

    async def wait_for_cover(
        self,
        task_id: str,
        *,
        timeout: float | None = 900.0,
        schedule: Schedule | None = None,
        not_found_grace: float = 90.0,
        on_update: OnUpdate | None = None,
    ) -> CoverDetails:
        """Wait until the cover is finished, and return its details with the images.

        Temporary errors never end the wait.

        Args:
            task_id: The cover task's own id, not the song's.
            timeout: Seconds from when the first poll is sent; `None` is forever, 0 is one poll.
            schedule: When to poll again, instead of the client's schedule.
            not_found_grace: Seconds for which "no record" means "not visible yet".
            on_update: Called with the details after every poll that returned some; plain or async,
                in the caller's task. An exception that it raises ends only this wait.

        Raises:
            CoverFailedError: The job failed.
            CoverTimeoutError: The time is up. The job goes on, and can be waited for again.
            TaskNotFoundError: There is no record after the grace.
            KieCoverError: An error that no retry can fix, such as `AuthenticationError`.
        """
        options = self._options(timeout, schedule, not_found_grace, on_update)
        return await self._poller.wait(task_id, options)

    def check_covers(self, task_ids: TaskIds, *, ordered: bool = False) -> OutcomeStream:
        """Poll each of many covers once, as `get_cover_details` does.

        The polls of all ids together are one flow, which takes turns with other calls.

        Args:
            task_ids: Any iterable or async iterable; it is read as the work goes on.
            ordered: Yield the outcomes in the order of the input instead of that of completion.
        """
        work, limit = partial(self._poller.fetch, flow=object()), self._max_concurrent_requests
        return OutcomeStream(Pool(task_ids, work, self._while_open, limit=limit, ordered=ordered))

    def wait_for_covers(
        self,
        task_ids: TaskIds,
        *,
        timeout: float | None = 900.0,
        schedule: Schedule | None = None,
        not_found_grace: float = 90.0,
        on_update: OnUpdate | None = None,
        max_concurrent_waits: int = 10_000,
        ordered: bool = False,
    ) -> OutcomeStream:
        """Wait for each of many covers: `check_covers`, with waits as `wait_for_cover` makes them.

        The polls of all waits together are one flow, which takes turns with other calls.

        Args:
            task_ids: Any iterable or async iterable; it is read as the work goes on.
            timeout: Seconds for each id, from its own first poll. For a deadline of all ids, use
                `asyncio.timeout`.
            schedule: As in `wait_for_cover`.
            not_found_grace: As in `wait_for_cover`.
            on_update: As in `wait_for_cover`, but called in a task of the stream.
            max_concurrent_waits: How many ids are waited for at the same time.
            ordered: Yield the outcomes in the order of the input instead of that of completion.
        """
        validate_number("max_concurrent_waits", max_concurrent_waits, at_least=1, whole=True)
        options = self._options(timeout, schedule, not_found_grace, on_update)
        work, limit = partial(self._poller.wait, options=options), max_concurrent_waits
        return OutcomeStream(Pool(task_ids, work, self._while_open, limit=limit, ordered=ordered))

    async def generate_cover(
        self,
        music_task_id: str,
        *,
        callback_url: str | None = None,
        retry: RetryPolicy | None = None,
        on_sending: Callable[[], Awaitable[object] | object] | None = None,
    ) -> str:
        """Ask for the cover of a song and return the new task's id. Costs credits.

        The request is retried only if it was certainly not accepted: after 429, 430, and if no
        connection was made. Check `maybe_accepted` of an error before you submit again.

        Args:
            music_task_id: The id of the song's task.
            callback_url: Where the API posts when the job has ended. The suno route requires one,
                even if no server listens there.
            retry: Is used instead of the client's policy.
            on_sending: Called on every attempt when the connection is made, before the first byte;
                plain or async. Use it to note durably that the request may be accepted from then
                on. What it raises ends the call, and nothing is sent. Its time counts towards the
                time to connect, `submit_connect_timeout`: if that is over, nothing is sent either.

        Raises:
            CoverAlreadyExistsError: The song has a cover already.
            Exception: What `on_sending` raised.
        """
        validate_task_id("music_task_id", music_task_id)
        if callback_url is not None:
            callback_url = str(validate_http_url("callback_url", callback_url))
        validate_callable("on_sending", on_sending)
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy, not {short_repr(retry)}")
        request = self._route.submit_request(music_task_id, callback_url)
        return await self._transport.call(
            request, about=f"song {music_task_id}", retry=retry, on_sending=on_sending
        )

    async def generate_and_wait(
        self,
        music_task_id: str,
        *,
        callback_url: str | None = None,
        timeout: float | None = 900.0,
        schedule: Schedule | None = None,
        not_found_grace: float = 90.0,
        on_update: OnUpdate | None = None,
        on_task_id: OnTaskId | None = None,
    ) -> CoverDetails:
        """Ask for the cover of a song, wait for it, and return its details. Costs credits.

        If the song has a cover already and the API returns its id, that one is waited for instead.
        Otherwise a client with an inbox makes its first poll when the callback has arrived, or
        should have. Every error that is raised once the id is known has it, as `task_id` or in a
        note. Nothing is stored: `kie_cover_async.jobs.make_covers` continues after a crash, too.

        Args:
            music_task_id: The id of the song's task.
            callback_url: As in `generate_cover`.
            timeout: As in `wait_for_cover`.
            schedule: As in `wait_for_cover`.
            not_found_grace: As in `wait_for_cover`.
            on_update: As in `wait_for_cover`.
            on_task_id: Called with the cover's id before the wait starts, so that the caller can
                store it; plain or async.

        Raises:
            RuntimeError: The inbox belongs to another event loop; no credits were spent.
        """
        options = self._options(timeout, schedule, not_found_grace, on_update)
        validate_callable("on_task_id", on_task_id)
        self._poller.check_inbox(music_task_id)
        is_new = True
        try:
            task_id = await self.generate_cover(music_task_id, callback_url=callback_url)
        except CoverAlreadyExistsError as error:
            if error.existing_task_id is None:
                raise
            task_id, is_new = error.existing_task_id, False
        _log.info("cover %s is on its way, for song %s", task_id, music_task_id)
        return await self._poller.wait_for_new(
            task_id, options, on_task_id, expects_callback=is_new
        )

    async def get_credits(self) -> float:
        """Return the credits that are left on the account."""
        return await self._transport.call(CREDITS)

    async def get_download_url(self, image_url: str) -> str:
        """Return a fresh link to an image of the vendor, valid for 20 minutes by its pages.

        Raises:
            InvalidRequestError: The URL is not one of the vendor's.
        """
        validate_http_url("image_url", image_url)
        return await self._transport.call(download_url(str(image_url)))

    def _options(
        self,
        timeout: float | None,
        schedule: Schedule | None,
        not_found_grace: float,
        on_update: OnUpdate | None,
    ) -> WaitOptions:
        return WaitOptions(
            timeout=timeout,
            not_found_grace=not_found_grace,
            schedule=self._schedule if schedule is None else schedule,
            retry=self._transport.retry,
            on_update=on_update,
        )


def _limiter(
    name: str, given: RateLimiter | None, default: Callable[[], RateLimiter]
) -> RateLimiter:
    if given is not None and not isinstance(given, RateLimiter):
        raise TypeError(f"{name} must be a RateLimiter, not {short_repr(given)}")
    return default() if given is None else given
