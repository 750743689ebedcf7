"""The keys that sign callbacks, from the environment."""

import os

from kie_cover_async.callbacks.signature import is_key

from .output import Refused

CALLBACK_KEY_VARIABLE = "KIE_CALLBACK_KEY"


def callback_keys() -> list[str]:
    """All that are there, with commas between them; while a key is replaced there are two.

    Raises `Refused` for what nothing can be signed with.
    """
    given = os.environ.get(CALLBACK_KEY_VARIABLE, "").split(",")
    keys = [key for key in map(str.strip, given) if key]
    if not all(map(is_key, keys)):
        raise Refused(f"{CALLBACK_KEY_VARIABLE} must be printable UTF-8 (it is not shown here)")
    return keys
