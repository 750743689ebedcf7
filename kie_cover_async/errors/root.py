"""What all errors share: facts, a message made from them, copying and pickling."""

from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import attrs

_E = TypeVar("_E", bound=BaseException)

_LONGEST_NOTE = 500


@dataclass_transform(kw_only_default=True, eq_default=False)
def error_class(cls: type[_E]) -> type[_E]:
    """An attrs class that is equal by identity and, without slots, can keep a traceback.

    Only an error with facts of its own needs this: making the methods takes time on import.
    """
    # attrs treats it as any class: with `auto_exc` the facts would become its `args`.
    return attrs.define(kw_only=True, slots=False, eq=False, str=False, auto_exc=False)(cls)


def _rebuild(cls: type["KieCoverError"], facts: dict[str, Any]) -> "KieCoverError":
    return cls(**facts)


def _line(text: str) -> str:
    """One printable line of bounded length: much of a message is what a server sent."""
    cut = text if len(text) <= _LONGEST_NOTE else f"{text[: _LONGEST_NOTE - 1]}…"
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())


@error_class
class KieCoverError(Exception):
    """The root of the tree.

    `transient` (per class): the condition may be over soon. Whether *this call* may be repeated is
    `retryable`: true for a transient error of a read, and for `generate_cover`, which is paid
    for, only where the request was certainly not taken. `maybe_accepted` marks the opposite doubt:
    a paid request may have been taken although no usable answer came.
    `request_id` is the gateway's `cf-ray`, the only id the API gives to a request.
    """

    __attrs_attrs__: ClassVar["tuple[attrs.Attribute[Any], ...]"]

    transient: ClassVar[bool] = False

    task_id: str | None = None
    request_id: str | None = None
    retryable: bool = False
    maybe_accepted: bool = False

    @property
    def args(self) -> tuple[Any, ...]:
        """Return the message: Celery's JSON results store `args` and the class's name, no more.

        Arguments that other code has assigned are returned instead.
        """
        return super().args or (str(self),)

    @args.setter
    def args(self, args: tuple[Any, ...]) -> None:
        Exception.__init__(self, *args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self._facts())

    def __str__(self) -> str:
        notes = [self._what()]
        if self.task_id is not None:
            notes.append(f"task {self.task_id}")
        if self.request_id is not None:
            notes.append(f"cf-ray {self.request_id}")
        if self.maybe_accepted:
            notes.append("the request may have been accepted")
        return "; ".join(map(_line, notes))

    def _what(self) -> str:
        return type(self).__name__

    def copy(self) -> Self:
        """An error with the same facts and a traceback of its own."""
        return type(self)(**self._facts())

    def _facts(self) -> dict[str, Any]:
        # By name: notes, and whatever else somebody has hung on an exception, are no facts.
        return {fact.name: getattr(self, fact.name) for fact in attrs.fields(type(self))}
