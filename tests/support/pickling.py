"""A value as another process gets it."""

import pickle
from typing import TypeVar

T = TypeVar("T")


def pickled(value: T, protocol: int = pickle.DEFAULT_PROTOCOL) -> T:
    again: T = pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own, of this moment
    return again
