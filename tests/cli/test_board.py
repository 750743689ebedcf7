"""What a person sees of waits while they go on."""

from io import StringIO

import pytest
from attrs import define
from rich.console import Console

from kie_cover_async import CoverDetails, RateLimitedError, ServerError, TaskNotFoundError
from kie_cover_async.cli.board import Board, Changes, can_draw
from kie_cover_async.events import CoverPolled, RequestFinished, RequestsPaused

REQUEST = RequestFinished(
    endpoint="credit",
    method="GET",
    task_id=None,
    attempt=1,
    http_status=200,
    queue_time=0.0,
    duration=0.1,
    error=None,
)
REFUSAL = RateLimitedError(code=429, task_id="one")


@define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def polled(task_id: str, brought, *, age: float = 0.0) -> CoverPolled:
    seen = isinstance(brought, CoverDetails)
    details, error = (brought, None) if seen else (None, brought)
    return CoverPolled(task_id=task_id, wait=object(), age=age, details=details, error=error)


def drawn(board: Board) -> list[str]:
    console = Console(file=StringIO(), width=100, markup=False)
    with console.capture() as captured:
        console.print(board)
    return [line[2:].rstrip() for line in captured.get().splitlines()]


def test_a_line_for_each_wait():
    """A wait shows its id, its state, its time and its polls."""
    clock = Clock()
    board = Board(["one", "another"], clock=clock)
    for flag in (0, 2):
        board.hear(polled("one", CoverDetails(task_id="one", success_flag=flag)))
    board.hear(polled("another", CoverDetails(task_id="another", success_flag=1)))
    clock.now += 12
    assert drawn(board) == [
        "one      GENERATING  12 s  2 polls",
        "another  SUCCESS     12 s  1 poll",
    ]


def test_trouble_is_shown_until_it_is_over():
    """An error stands beside the state that was seen last, and goes with the next good poll."""
    board = Board(["one"])
    board.hear(polled("one", ServerError(code=500, msg="[b]\x1b[31m")))
    wait, trouble = drawn(board)
    assert wait == "one  first poll  0 s  1 poll"
    assert trouble.startswith("ServerError 500: [b]")
    assert "\x1b" not in trouble
    board.hear(polled("one", CoverDetails(task_id="one", success_flag=2)))
    assert drawn(board) == ["one  GENERATING  0 s  2 polls"]


def test_a_refusal_is_counted_down():
    """While all requests are stopped the board says for how long; other events change nothing."""
    clock = Clock()
    board = Board(["one"], clock=clock)
    board.hear(RequestsPaused(kind="polls", seconds=3.0, error=REFUSAL))
    board.hear(REQUEST)
    clock.now += 1
    assert drawn(board)[1] == "too many requests: goes on in 2.0 s"
    clock.now += 2
    assert drawn(board) == ["one  first poll  3 s  0 polls"]


def test_changes(capsys):
    """Where there is no board, what changed has a line; what did not, and a temporary failure, has
    none."""
    changes = Changes()
    generating = CoverDetails(task_id="one", success_flag=2)
    for event in (
        polled("one", generating, age=1),
        polled("one", generating, age=2),
        REQUEST,
        polled("one", ServerError(code=500, task_id="one"), age=3),
        polled("one", TaskNotFoundError(code=200, msg="success", task_id="one"), age=4),
        polled("one", TaskNotFoundError(code=200, msg="success", task_id="one"), age=5),
        polled("one", generating, age=6),
    ):
        changes.hear(event)
    assert capsys.readouterr().err.splitlines() == [
        "one at 1.0 s: GENERATING",
        "one at 4.0 s: no record of this id (200: success); task one",
        "one at 6.0 s: GENERATING",
    ]


@pytest.mark.parametrize("width", [20, 80])
def test_a_narrow_terminal(width):
    """Where there is no room, lines are cut and not wrapped."""
    board = Board(["an-id-of-some-length"])
    console = Console(file=StringIO(), width=width)
    with console.capture() as captured:
        console.print(board)
    assert captured.get().count("\n") == 1


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
def test_where_something_can_be_drawn(monkeypatch, stream, term, can):
    """On a terminal, unless it is one of those that only ever go forward."""
    monkeypatch.setenv("TERM", term)
    assert can_draw(stream) is can
