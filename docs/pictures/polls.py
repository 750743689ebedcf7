"""When a wait polls, compared to a fixed interval: python docs/pictures/polls.py docs/images

Needs matplotlib. The polls are those of the package's own schedule, with its jitter, seeded.
"""

import random
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from kie_cover_async import ExponentialSchedule

SHOWN = 180
# Seen live, and the documented sample.
ENDS = (47, 146)

OURS, FIXED, LINE, NOTE, END = "#1b6ca8", "#8a8f98", "#e3e5e8", "#3f4650", "#c8553d"
STROKE = {"linestyle": "none", "marker": "|", "markersize": 17, "markeredgewidth": 2.2}

Delay = Callable[[float], float]


def polls(delay: Delay, begin: float = 0.0) -> Iterator[float]:
    """The ages at which a wait polls that begins when the job is `begin` seconds old."""
    age = begin
    while age <= SHOWN:
        yield age
        age += delay(age)


def rows() -> list[tuple[str, str, list[float]]]:
    """Name, colour and polls of each way to wait, from the bottom up."""
    schedule = ExponentialSchedule()
    patient = ExponentialSchedule(not_before=30.0)
    return [
        ("ExponentialSchedule(\nnot_before=30)", OURS, list(polls(patient.delay))),
        ("the same, resumed\nat 80 s", OURS, list(polls(schedule.delay, begin=80.0))),
        ("ExponentialSchedule()", OURS, list(polls(schedule.delay))),
        ("every 30 s", FIXED, list(polls(lambda _: 30.0))),
        ("every 3 s", FIXED, list(polls(lambda _: 3.0))),
    ]


def draw(axes: Axes, y: int, color: str, ages: list[float]) -> None:
    axes.plot([0, SHOWN], [y, y], color=LINE, linewidth=1, zorder=1)
    axes.plot(ages, [y] * len(ages), color=color, zorder=3, **STROKE)
    for end in ENDS:
        if ages[0] < end:
            note(axes, y, ages, end)


def note(axes: Axes, y: int, ages: list[float], end: float) -> None:
    """How many polls it takes to see a cover that is done at `end`, and how late that is."""
    seen = next(age for age in ages if age >= end)
    said = f"{ages.index(seen) + 1} polls, {seen - end:.0f} s late"
    frame = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(end + 1.2, y + 0.3, said, size=8.5, color=NOTE, bbox=frame, zorder=4)


def main(folder: Path) -> None:
    random.seed(7)
    mpl.rcParams["svg.hashsalt"] = "polls"  # the same picture has the same text
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for y, (_, color, ages) in enumerate(rows()):
        draw(axes, y, color, ages)
    for end in ENDS:
        axes.axvline(end, color=END, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)
        axes.text(end, 4.86, f"done after {end} s", ha="center", va="bottom", size=9, color=END)
    axes.set(xlim=(-2, SHOWN + 8), ylim=(-0.6, 4.8), xticks=range(0, SHOWN + 1, 15))
    axes.set_yticks(range(len(rows())), [name for name, _, _ in rows()])
    axes.set_xlabel("age of the job, in seconds; each stroke is a poll")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "left", "right"]].set_visible(False)
    figure.savefig(svg := StringIO(), format="svg", metadata={"Date": None})
    lines = [line.rstrip() for line in svg.getvalue().splitlines()]
    (folder / "polls.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
