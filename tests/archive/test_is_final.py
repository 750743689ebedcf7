"""Which errors rule a cover out."""

from datetime import UTC, datetime, timedelta

import pytest

from kie_cover_async import (
    CoverDetails,
    CoverFailedError,
    CoverResponse,
    DownloadError,
    ServerError,
    TaskNotFoundError,
)
from kie_cover_async.archive import is_final


def finished(days):
    """Return a cover that was completed this many days ago."""
    return CoverDetails(
        task_id="an-id",
        success_flag=1,
        response=CoverResponse(images=("https://example.com/a.png",)),
        complete_time=datetime.now(UTC) - timedelta(days=days),
    )


@pytest.mark.parametrize(
    ("error", "details", "expected"),
    [
        (CoverFailedError(details=CoverDetails(task_id="an-id", success_flag=3)), None, True),
        (TaskNotFoundError(code=422), None, True),
        (TaskNotFoundError(code=404), None, False),
        (DownloadError(reason="gone", http_status=404), None, True),
        (DownloadError(reason="gone", http_status=410), None, True),
        (DownloadError(reason="refused", http_status=403), None, False),
        (DownloadError(reason="refused", http_status=403), finished(days=1), False),
        (DownloadError(reason="refused", http_status=403), finished(days=15), True),
        (DownloadError(reason="no certificate"), None, False),
        (ServerError(code=500), None, False),
    ],
)
def test_only_answers_of_the_service_are_final(error, details, expected):
    """A 404 from the API may mean a wrong base URL, and a 403 from the host a refused client."""
    assert is_final(error, details) is expected
