"""What is asked: methods, paths and bodies, and what each endpoint's `data` may be."""

import json

import pytest
from support.api_answers import CALLS, IMAGE, SUBMITS, TASK, answer, envelope, outcome_of

from kie_cover_async import InvalidResponseError
from kie_cover_async.api import CREDITS, Request, download_url
from kie_cover_async.api.suno import SUNO

pytestmark = pytest.mark.usefixtures("parser")


def test_the_paths():
    """Each endpoint is asked as the vendor's pages say; a GET's task id becomes its query."""
    assert [(call.method, call.endpoint.path, call.task_id) for call in CALLS.values()] == [
        ("GET", "/api/v1/suno/cover/record-info", TASK),
        ("POST", "/api/v1/suno/cover/generate", None),
        ("GET", "/api/v1/jobs/recordInfo", TASK),
        ("POST", "/api/v1/jobs/createTask", None),
        ("GET", "/api/v1/chat/credit", None),
        ("POST", "/api/v1/common/download-url", None),
    ]


def test_an_endpoint_is_called_by_the_name_it_has_in_logs_and_events():
    """The names that users meet in logs and events are those of the table here."""
    assert [call.endpoint.name for call in CALLS.values()] == list(CALLS)


def test_only_a_request_for_a_cover_is_a_submit():
    """Asking for a cover is paid for, and never repeated; everything else is a read."""
    assert [name for name, call in CALLS.items() if call.endpoint.is_submit] == SUBMITS


def test_a_route_shows_its_name():
    """A route is known by its name in a debugger and in messages."""
    assert (SUNO.name, repr(SUNO)) == ("suno", "<Route suno>")


def test_the_bodies():
    """The request's spelling is callBackUrl, and text goes out as JSON whatever is in it."""
    body = SUNO.submit_request("söng", "https://example.com/hook?a=b&c=ü").body
    assert json.loads(body) == {
        "taskId": "söng",
        "callBackUrl": "https://example.com/hook?a=b&c=ü",
    }
    assert json.loads(download_url(IMAGE).body) == {"url": IMAGE}
    assert Request(SUNO.poll, TASK).body is None
    assert CREDITS.body is None


@pytest.mark.parametrize("amount", [0, 1, -3, 5916.25, 1e-9, 10**15, 2**53 + 1])
def test_credits(amount):
    """A balance is any finite number, and always a float."""
    credits = outcome_of("credit", answer(envelope(200, amount)))
    assert credits == float(amount)
    assert type(credits) is float


@pytest.mark.parametrize("data", ["5916.25", "", True, False, None, [1], {"credits": 1}, 10**400])
def test_no_credits(data):
    """Anything else is no balance, a text of digits included."""
    error = outcome_of("credit", answer(envelope(200, data)))
    assert (type(error), error.path) == (InvalidResponseError, "$.data")
    assert error.expected == "a finite number"


@pytest.mark.parametrize("url", [IMAGE, "http://h/a?sign=%2F&b=c#d", "HTTPS://H"])
def test_download_url(url):
    """A link is the bare text, as it was written: it may be signed."""
    assert outcome_of("download-url", answer(envelope(200, url))) == url


@pytest.mark.parametrize("data", ["", "a.png", "ftp://h/a", "https://", 7, None, {"url": IMAGE}])
def test_no_download_url(data):
    """Anything that could not be fetched is refused."""
    error = outcome_of("download-url", answer(envelope(200, data)))
    assert (type(error), error.path) == (InvalidResponseError, "$.data")
    assert error.expected == "an http or https URL"


def test_a_new_task():
    """A request for a cover is answered with the new task's id."""
    assert outcome_of("generate", answer(envelope(200, {"taskId": TASK, "more": 1}))) == TASK
