"""Failures that a command gets through by itself are named, but not one by one."""

import pytest
from attrs import define

from kie_cover_async import (
    AuthenticationError,
    DownloadError,
    InvalidResponseError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from kie_cover_async.cli.failures import TemporaryFailures, reporting_failures
from kie_cover_async.cli.output import DONE
from kie_cover_async.emulator import CoverScript, Fault
from kie_cover_async.events import RequestFinished, RequestsPaused, RetryScheduled

DOWN = Fault.server_error(503, in_envelope=False)
NOT_A_SERVER = "http://127.0.0.1:9"


@define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said(clock, capsys):
    """Let an observer receive events; the lines on stderr."""
    failures = TemporaryFailures(clock=clock)

    def said(*events):
        for event in events:
            failures.hear(event)
        return capsys.readouterr().err.splitlines()

    return said


def request(error=None):
    return RequestFinished(
        endpoint="record-info",
        method="GET",
        task_id="a",
        attempt=1,
        http_status=200 if error is None else None,
        queue_time=0,
        duration=0.1,
        error=error,
    )


def test_a_kind_of_failure_has_one_line_in_half_a_minute(said, clock):
    """The next line of a kind counts the failures that had none."""
    down = [request(ServerError(code=503, task_id=f"id-{n}")) for n in range(100)]
    assert said(*down) == ["temporary failure: ServerError 503; task id-0"]
    clock.now += 29.9
    assert said(down[1]) == []
    clock.now += 0.1
    assert said(down[2]) == [
        "temporary failure: ServerError 503; task id-2 (100 more in the last 30 s)"
    ]
    clock.now += 60
    assert said(down[3]) == ["temporary failure: ServerError 503; task id-3"]


def test_kinds_of_failures(said):
    """A class with its code is a kind, and so is a reason, whatever figures stand in it."""
    lines = said(
        *(request(ServerError(code=code)) for code in (500, 503, 500)),
        *(request(TransportError(reason=f"no answer within {n} s")) for n in (0.5, 30)),
        *(request(TransportError(reason=f"OSError: port {n}")) for n in (1, 2)),
        *(request(InvalidResponseError(path=p, found="a", expected="b")) for p in ("$", "$.data")),
    )
    assert [line.removeprefix("temporary failure: ") for line in lines] == [
        "ServerError 500",
        "ServerError 503",
        "no usable answer: no answer within 0.5 s",
        "no usable answer: OSError: port 1",
        "unreadable answer: at $ expected b, found a",
    ]


def test_refusals_for_too_many_requests(said):
    """They are named by how long all requests stop, and not a second time as failures."""
    refusal = RateLimitedError(code=429)
    refused = [RequestsPaused(kind="polls", seconds=1.5, error=refusal), request(refusal)]
    assert said(*refused, *refused) == ["too many requests: all of them stop for 1.5 s"]


def test_downloads(said):
    """A download that is repeated is a temporary failure; a repeated request was named before."""
    for error, lines in (
        (DownloadError(reason="the host answered 503"), 1),
        (DownloadError(reason="the host answered 500"), 0),
        (ServerError(code=500), 0),
    ):
        assert len(said(RetryScheduled(task_id="a", attempt=1, delay=0.1, error=error))) == lines


def test_what_is_not_a_temporary_failure(said):
    """Answers, and errors that end a call, have lines of their own elsewhere."""
    assert said(request(), request(AuthenticationError(code=401))) == []


def test_events_are_passed_on(capsys):
    """The observer behind the report receives each event."""
    events = []
    observer = reporting_failures(events.append)
    down = request(ServerError(code=503))
    observer(down)
    assert events == [down]
    assert capsys.readouterr().err == "temporary failure: ServerError 503\n"


COMMANDS = {
    "wait for one": ["wait", "an-id"],
    "wait for many": ["wait", "an-id", "another-id"],
    "check": ["check", "an-id", "another-id"],
    "collect": ["collect", "an-id", "another-id"],
}
each_command = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)


@each_command
async def test_a_server_in_trouble_is_named_in_a_pipe(started, emulator, tmp_path, arguments):
    """The first line comes with the first failure, long before the command gives up."""
    emulator.fault(DOWN, rate=1.0)
    out = ("--out", str(tmp_path)) if arguments[0] == "collect" else ()
    async with started(*arguments, *out, KIE_BASE_URL=emulator.url) as command:
        assert (await command.talk()).startswith("temporary failure: ServerError 503")


@each_command
async def test_a_server_that_is_down_is_named_on_a_terminal(on_terminal, tmp_path, arguments):
    """The failure stands above what is drawn, or in it."""
    out = ("--out", str(tmp_path)) if arguments[0] == "collect" else ()
    async with on_terminal(*arguments, *out, KIE_BASE_URL=NOT_A_SERVER) as terminal:
        await terminal.until("no usable answer: ClientConnectorError")


async def test_many_failures_are_one_line(run, emulator):
    """However many requests fail, and of however many covers."""
    emulator.fault(DOWN, count=6)
    task_ids = [emulator.add_job(CoverScript(statuses=["success"])) for _ in range(4)]
    ended = await run("wait", *task_ids, "--rate", "inf", KIE_BASE_URL=emulator.url)
    assert ended.code == DONE
    failure, summary = ended.err.splitlines()
    assert failure.startswith("temporary failure: ServerError 503")
    assert summary.startswith("4 ids in ")


async def test_a_host_of_images_in_trouble_is_named(started, emulator, tmp_path):
    """A download that is tried again has a line too."""
    emulator.fault(Fault.answer(503), endpoint="image", rate=1.0)
    task_id = emulator.add_job(CoverScript(statuses=["success"]))
    arguments = ("collect", task_id, "--out", str(tmp_path))
    async with started(*arguments, KIE_BASE_URL=emulator.url) as command:
        line = await command.talk()
    assert line.startswith("temporary failure: image not saved: the host answered 503")


async def test_a_failing_request_to_generate_is_named(started):
    """A command with few requests names each failure, with the pause that follows."""
    arguments = ("generate", "a-song", "--callback-url", "http://x")
    async with started(*arguments, KIE_BASE_URL=NOT_A_SERVER) as command:
        assert (await command.talk()).startswith("repeated in ")
