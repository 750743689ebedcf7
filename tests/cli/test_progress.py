"""What a command shows while it runs: the views that are drawn, and the lines on stderr."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from attrs import define
from rich.console import Console

from kie_cover_async import (
    AuthenticationError,
    CoverDetails,
    CoverOutcome,
    DownloadError,
    InvalidResponseError,
    RateLimitedError,
    ServerError,
    TaskNotFoundError,
    TransportError,
)
from kie_cover_async.cli.commands.collect import CollectView
from kie_cover_async.cli.commands.covers import OutcomesView
from kie_cover_async.cli.progress import FailureLog, StateChangeLog, WaitView, can_draw
from kie_cover_async.events import CoverPolled, RequestFinished, RequestsPaused, RetryScheduled

REFUSAL = RateLimitedError(code=429, task_id="one")
ERROR = ServerError(code=500)
PAUSE = RequestsPaused(kind="polls", seconds=3.0, error=REFUSAL)


@define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def request(error=None, *, queue_time=0.0, method="GET"):
    return RequestFinished(
        endpoint="record-info",
        method=method,
        task_id="a",
        attempt=1,
        http_status=200 if error is None else None,
        queue_time=queue_time,
        duration=0.1,
        error=error,
    )


def polled(task_id, result, *, age=0.0):
    is_answer = isinstance(result, CoverDetails)
    details, error = (result, None) if is_answer else (None, result)
    return CoverPolled(task_id=task_id, wait=object(), age=age, details=details, error=error)


def drawn(view, *, width=100):
    """Return the lines that are drawn, without the spinner and the indentation."""
    console = Console(file=StringIO(), width=width)
    with console.capture() as captured:
        console.print(view)
    return [line[2:].rstrip() for line in captured.get().splitlines()]


def test_wait_shows_its_id_state_time_and_polls(clock):
    """Each poll updates the row of a wait."""
    view = WaitView("one", clock=clock)
    for flag in (0, 2):
        view.on_event(polled("one", CoverDetails(task_id="one", success_flag=flag)))
    clock.now += 12
    assert drawn(view) == ["one  GENERATING  12 s  2 polls"]


def test_error_is_shown_until_a_poll_succeeds(clock):
    """The last state stays visible meanwhile, and the error is plain text."""
    view = WaitView("one", clock=clock)
    view.on_event(polled("one", ServerError(code=500, msg="[b]\x1b[31m")))
    wait, error = drawn(view)
    assert wait == "one  first poll  0 s  1 poll"
    assert error.startswith("ServerError 500: [b]")
    assert "\x1b" not in error
    view.on_event(polled("one", CoverDetails(task_id="one", success_flag=2)))
    assert drawn(view) == ["one  GENERATING  0 s  2 polls"]


def test_pause_is_counted_down_instead_of_the_refusal(clock):
    """While requests pause the view says for how long; other events change nothing."""
    view = WaitView("one", clock=clock)
    view.on_event(PAUSE)
    view.on_event(polled("one", REFUSAL))
    view.on_event(request())
    clock.now += 1
    assert drawn(view)[1:] == ["too many requests: resuming in 2.0 s"]
    view.on_event(polled("one", CoverDetails(task_id="one")))
    clock.now += 2
    assert drawn(view) == ["one  UNKNOWN     3 s  2 polls"]


@pytest.mark.parametrize("width", [20, 80])
def test_rows_are_cut_and_not_wrapped(clock, width):
    """A narrow terminal shows one line, too."""
    assert len(drawn(WaitView("an-id-of-some-length", clock=clock), width=width)) == 1


def outcome(flag):
    return CoverOutcome(task_id="a", details=CoverDetails(task_id="a", success_flag=flag))


def test_outcomes_are_counted(clock):
    """The view and the summary say what became of the ids, and how long that took."""
    view = OutcomesView(clock=clock)
    for each in (*map(outcome, (1, 1, 2)), CoverOutcome(task_id="b", error=ERROR)):
        view.count(each)
    clock.now += 10
    first, ends, _ = drawn(view)
    assert first == "4 done: 3 ok, 1 failed   10 s   0.0 requests/s"
    assert ends == "2 SUCCESS  1 GENERATING  1 ServerError"
    assert view.summary() == "4 ids in 10.0 s: 3 ok, 1 failed; 0 requests, 0.0 per second"


def test_rate_and_queue_time_are_those_of_the_last_requests(clock):
    """The summary has the rate of all requests. The queue of submits does not count."""
    view = OutcomesView(clock=clock)
    for _ in range(100):
        drawn(view)
        clock.now += 0.1
        view.on_event(request(queue_time=2))
    view.on_event(request(queue_time=60, method="POST"))
    clock.now += 0.1
    first, _, rest = drawn(view)
    assert first.endswith("   10 s   10.0 requests/s")
    assert rest == "1.98 s in the queue"
    assert view.summary().endswith("; 101 requests, 10.0 per second")
    clock.now += 6
    assert drawn(view)[0].endswith("   0.0 requests/s")


def test_lag_is_the_mean_time_from_the_end_of_a_job_to_its_poll(clock):
    """Only jobs whose record has both times count."""
    created = datetime(2026, 1, 15, 12, tzinfo=UTC)
    ended = {"create_time": created, "complete_time": created + timedelta(seconds=50)}
    view = OutcomesView(clock=clock)
    for facts, age in (
        ({"success_flag": 2}, 10),
        ({"success_flag": 1}, 70),
        ({"success_flag": 1, **ended}, 52),
        ({"success_flag": 3, **ended}, 54),
    ):
        view.on_event(polled("a", CoverDetails(task_id="a", **facts), age=age))
    view.on_event(polled("a", ERROR, age=99))
    assert drawn(view)[2].endswith("   3.0 s from done to seen")


def test_pause_is_shown_below_the_counts(clock):
    """While requests pause the view of many covers says for how long."""
    view = OutcomesView(clock=clock)
    view.on_event(PAUSE)
    clock.now += 1
    assert drawn(view)[3] == "too many requests: resuming in 2.0 s"
    clock.now += 2
    assert len(drawn(view)) == 3


def test_saved_covers_images_and_bytes_are_counted(clock):
    """The view of `collect` has the rate of bytes, and what was not saved by this run."""
    view = CollectView(clock=clock)
    first, second, _ = drawn(view)
    assert first == "0 saved: 0 images, 0 bytes   0 s   0 bytes/s"
    assert second == "0 pending"
    view.pending, view.ends["saved"], view.images, view.bytes = 1500, 1, 1, 1_000_000
    view.saved_before = 7
    view.count_unsaved("failed")
    drawn(view)
    clock.now += 2
    view.bytes += 1_000_000
    assert drawn(view)[:2] == [
        "1 saved: 1 image, 2.0 MB   2 s   500.0 kB/s",
        "1,499 pending  1 failed  7 saved before",
    ]
    assert view.summary() == "1 cover saved in 2.0 s: 1 image, 2.0 MB; 1 failed; 7 saved before"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "can"),
    [
        (Terminal(), "xterm-256color", True),
        (Terminal(), "dumb", False),
        (StringIO(), "xterm-256color", False),
        (None, "xterm-256color", False),
    ],
)
def test_views_are_drawn_on_terminals_that_can_erase(monkeypatch, stream, term, can):
    """A dumb terminal, a file and a closed stream cannot."""
    monkeypatch.setenv("TERM", term)
    assert can_draw(stream) is can


def test_each_change_of_state_is_one_line(capsys):
    """A poll without news, and a temporary failure, have no line."""
    log = StateChangeLog()
    generating = CoverDetails(task_id="one", success_flag=2)
    for event in (
        polled("one", generating, age=1),
        polled("one", generating, age=2),
        request(),
        polled("one", ServerError(code=500, task_id="one"), age=3),
        polled("one", TaskNotFoundError(code=200, msg="success", task_id="one"), age=4),
        polled("one", TaskNotFoundError(code=200, msg="success", task_id="one"), age=5),
        polled("one", generating, age=6),
    ):
        log.on_event(event)
    assert capsys.readouterr().err.splitlines() == [
        "one at 1.0 s: GENERATING",
        "one at 4.0 s: no record of this id (200: success); task one",
        "one at 6.0 s: GENERATING",
    ]


@pytest.fixture
def logged(clock, capsys):
    """Pass events to a failure log; return the lines on stderr."""
    log = FailureLog(clock=clock)

    def logged(*events):
        for event in events:
            log.on_event(event)
        return capsys.readouterr().err.splitlines()

    return logged


def test_a_kind_of_failure_has_one_line_in_30_seconds(logged, clock):
    """The next line of a kind counts the failures without one."""
    down = [request(ServerError(code=503, task_id=f"id-{n}")) for n in range(100)]
    assert logged(*down) == ["temporary failure: ServerError 503; task id-0"]
    clock.now += 29.9
    assert logged(down[1]) == []
    clock.now += 0.1
    assert logged(down[2]) == [
        "temporary failure: ServerError 503; task id-2 (100 more in the last 30 s)"
    ]
    clock.now += 60
    assert logged(down[3]) == ["temporary failure: ServerError 503; task id-3"]


def test_kind_of_a_failure_is_its_class_with_the_code_or_reason(logged):
    """Figures in a reason make no difference."""
    lines = logged(
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


def test_pause_has_one_line_and_its_refusal_none(logged):
    """Refusals for too many requests are reported by how long requests pause."""
    refused = [RequestsPaused(kind="polls", seconds=1.5, error=REFUSAL), request(REFUSAL)]
    assert logged(*refused, *refused) == ["too many requests: all of them pause for 1.5 s"]


def test_repeated_download_is_a_temporary_failure(logged):
    """A repeated request is not, because its failure was reported before."""
    for error, lines in (
        (DownloadError(reason="the host answered 503"), 1),
        (DownloadError(reason="the host answered 500"), 0),
        (ServerError(code=500), 0),
    ):
        assert len(logged(RetryScheduled(task_id="a", attempt=1, delay=0.1, error=error))) == lines


def test_answers_and_final_errors_are_no_temporary_failures(logged):
    """They have lines of their own elsewhere."""
    assert logged(request(), request(AuthenticationError(code=401))) == []
