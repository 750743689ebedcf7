"""How a limit of open files lowers what runs at the same time."""

import resource
import sys

import pytest

from kie_cover_async import CoverClient
from kie_cover_async.archive import CoverArchive

MAKERS = {
    # Polls and one submit, of which each has a connection.
    "requests": lambda number: CoverClient(
        "a-key", max_concurrent_requests=number - 1, max_concurrent_submits=1
    ),
    "downloads": lambda number: CoverArchive("a-folder", max_concurrent_downloads=number),
}
LOWERED = [
    (100, "requests: 34 instead of 100"),
    (100, "requests: 34 instead of 35"),
    (34, "requests: 1 instead of 5"),
    (8, "requests: 1 instead of 5"),
    (64, "downloads: 8 instead of 16"),
    (8, "downloads: 1 instead of 16"),
]


@pytest.mark.parametrize(("limit", "change"), LOWERED)
def test_few_open_files_lower_the_concurrency(open_files, caplog, limit, change):
    """Requests and downloads share the remaining descriptors; one warning says so."""
    what, numbers = change.split(": ")
    with open_files(limit):
        MAKERS[what](int(numbers.split()[-1]))
    [record] = caplog.records
    assert record.levelname == "WARNING"
    said = f"{what} at the same time: {numbers}, since this process may open {limit} files "
    assert record.getMessage() == f"{said}(ulimit -n)"


@pytest.mark.parametrize(
    ("what", "limit", "wanted"),
    [("requests", 232, 100), ("requests", 100, 34), ("downloads", 96, 16), ("downloads", 8, 1)],
)
def test_enough_open_files_change_nothing(open_files, caplog, what, limit, wanted):
    """A concurrency that fits, or is the minimum, is unchanged."""
    with open_files(limit):
        MAKERS[what](wanted)
    assert caplog.records == []


def test_without_a_limit_of_open_files_nothing_changes(caplog, monkeypatch):
    """On a system without a known limit, the concurrency is unchanged."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: unlimited)
        CoverClient("a-key", max_concurrent_requests=10_000)
    monkeypatch.setitem(sys.modules, "resource", None)
    CoverClient("a-key", max_concurrent_requests=10_000)
    assert caplog.records == []
