"""What a client can be asked: a table of tests that is to have all of it is held against this."""

import inspect

from kie_cover_async import CoverClient

VERBS = {
    name
    for name, _ in inspect.getmembers(CoverClient, inspect.isfunction)
    if not name.startswith("_") and name != "aclose"
}
