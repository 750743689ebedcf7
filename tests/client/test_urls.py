from urllib.parse import parse_qsl, urlsplit

import pytest
from support.api_answers import CALLS, TASK
from yarl import URL

from kie_cover_async.api import CREDITS, Request
from kie_cover_async.api.suno import SUNO
from kie_cover_async.transport import HttpClient


def http_client(base_url):
    return HttpClient(
        URL(base_url),
        "a-key",
        session=None,
        request_timeout=1.0,
        submit_timeout=1.0,
        submit_connect_timeout=1.0,
        user_agent="tests",
    )


def test_the_url_of_each_request():
    """A GET for a task has the id as its query; other requests have no query."""
    http = http_client("https://h")
    assert {name: str(http.url_of(call)) for name, call in CALLS.items()} == {
        "record-info": f"https://h/api/v1/suno/cover/record-info?taskId={TASK}",
        "generate": "https://h/api/v1/suno/cover/generate",
        "recordInfo": f"https://h/api/v1/jobs/recordInfo?taskId={TASK}",
        "createTask": "https://h/api/v1/jobs/createTask",
        "credit": "https://h/api/v1/chat/credit",
        "download-url": "https://h/api/v1/common/download-url",
    }


def test_a_post_about_a_task_has_no_query():
    """What a POST asks for stands in its body."""
    post = Request(CALLS["generate"].endpoint, TASK, body=b"{}")
    assert str(http_client("https://h").url_of(post)) == "https://h/api/v1/suno/cover/generate"


@pytest.mark.parametrize(
    "task_id", ["a/b?c&d=é%", "../../x", "a+b", "%2F", "%252F", "#", ";", "日本"]
)
def test_an_id_cannot_leave_its_place(task_id):
    """Whatever characters an id has, it is the one value of the one query parameter."""
    sent = urlsplit(str(http_client("https://h").url_of(Request(SUNO.poll, task_id))))
    assert sent.path == "/api/v1/suno/cover/record-info"
    assert parse_qsl(sent.query, strict_parsing=True) == [("taskId", task_id)]
    assert sent.fragment == ""


@pytest.mark.parametrize("base_url", ["https://h/kie", "https://h/kie/"])
def test_a_base_url_may_have_a_path(base_url):
    """A reseller's prefix stays before the path of the call."""
    assert str(http_client(base_url).url_of(CREDITS)) == "https://h/kie/api/v1/chat/credit"
