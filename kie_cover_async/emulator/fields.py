"""Changing one field of a JSON text."""

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from kie_cover_async.emulator.answers import encoded


class _Marker(Enum):
    REMOVED = "removed"


REMOVED: Final = _Marker.REMOVED


def edited(body: bytes, path: Sequence[str], value: Any) -> bytes:
    """The JSON with the field at `path` set to `value`, or without it where that is `REMOVED`."""
    return encoded(_edited(json.loads(body), path, value))


def _edited(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(document, list):
        return _edited_list(document, int(path[0]), path[1:], value)
    if isinstance(document, dict):
        return _edited_object(document, path[0], path[1:], value)
    return document if value is REMOVED else _edited_object({}, path[0], path[1:], value)


def _edited_object(members: dict[str, Any], name: str, rest: Sequence[str], value: Any) -> Any:
    if value is REMOVED and name not in members:
        return members
    changed = {**members, name: _edited(members.get(name), rest, value)}
    return {name: member for name, member in changed.items() if member is not REMOVED}


def _edited_list(items: list[Any], at: int, rest: Sequence[str], value: Any) -> Any:
    old = items[at] if at < len(items) else None
    changed = [*items[:at], _edited(old, rest, value), *items[at + 1 :]]
    return [item for item in changed if item is not REMOVED]
