"""The keys that sign callbacks, from the environment."""

import os

CALLBACK_KEY_VARIABLE = "KIE_CALLBACK_KEY"


def callback_keys() -> list[str]:
    """All that are there, with commas between them; while a key is replaced there are two."""
    keys = os.environ.get(CALLBACK_KEY_VARIABLE, "").split(",")
    return [key for key in map(str.strip, keys) if key]
