"""The keys that sign callbacks, from the environment."""

import os

from .output import Refused

CALLBACK_KEY_VARIABLE = "KIE_CALLBACK_KEY"


def callback_keys() -> list[str]:
    """All that are there, with commas between them; while a key is replaced there are two.

    Raises `Refused` for what nothing can be signed with.
    """
    keys = os.environ.get(CALLBACK_KEY_VARIABLE, "")
    try:
        keys.encode()
    except UnicodeEncodeError:
        raise Refused(f"{CALLBACK_KEY_VARIABLE} must be UTF-8 (it is not shown here)") from None
    return [key for key in map(str.strip, keys.split(",")) if key]
