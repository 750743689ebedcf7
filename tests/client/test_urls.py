from urllib.parse import parse_qsl, urlsplit

import pytest
from yarl import URL

from kie_cover_async.api import get_credits, record_info
from kie_cover_async.transport import HttpClient


def http_client(base_url):
    return HttpClient(URL(base_url), "a-key", session=None, request_timeout=1.0, user_agent="tests")


@pytest.mark.parametrize(
    "task_id", ["a/b?c&d=é%", "../../x", "a+b", "%2F", "%252F", "#", ";", "日本"]
)
def test_an_id_cannot_leave_its_place(task_id):
    """Whatever characters an id has, it is the one value of the one query parameter."""
    sent = urlsplit(str(http_client("https://h").url_of(record_info(task_id))))
    assert sent.path == "/api/v1/suno/cover/record-info"
    assert parse_qsl(sent.query, strict_parsing=True) == [("taskId", task_id)]
    assert sent.fragment == ""


@pytest.mark.parametrize("base_url", ["https://h/kie", "https://h/kie/"])
def test_a_base_url_may_have_a_path(base_url):
    """A reseller's prefix stays before the path of the call."""
    assert str(http_client(base_url).url_of(get_credits())) == "https://h/kie/api/v1/chat/credit"
