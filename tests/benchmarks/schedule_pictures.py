"""Pictures of schedules.

Their background is transparent, and their colours can be read on white and on black.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from simulated_covers import (
    DISTRIBUTIONS,
    Distribution,
    Every,
    best_possible,
    finished,
    lag_and_polls,
    polls_at,
)

from kie_cover_async import AdaptiveSchedule, ExponentialSchedule, Schedule

PEERS: dict[str, Schedule] = {
    "every 3 s": Every(3),
    "every 4 s": Every(4),
    "every 6 s": Every(6),
    "every 30 s": Every(30),
    "2, 4, 8 … 30 s": ExponentialSchedule(factor=2, max_delay=30, jitter=0),
}
POLL_COSTS = [0.05 * 1.5**power for power in range(12)]
ADAPTIVE, EXPONENTIAL, OTHERS, TEXT = "#1b8fb5", "#c4601d", "#868b92", "#7b8087"
UNTIL = 165
# Points, for labels that would overlap others.
LABEL_OFFSETS = {"every 30 s": (-4, -13), "every 6 s": (-2, 8)}

mpl.rcParams.update(
    {
        "axes.edgecolor": TEXT,
        "axes.labelcolor": TEXT,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "lines.linewidth": 1.2,
        "font.size": 9,
        "savefig.transparent": True,
        # Reproducible with the same release of matplotlib.
        "svg.hashsalt": "schedules",
        "text.color": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
    }
)


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)
    plt.close(figure)


def color_of(schedule: Schedule) -> str:
    if isinstance(schedule, AdaptiveSchedule):
        return ADAPTIVE
    return EXPONENTIAL if schedule == ExponentialSchedule(jitter=0) else OTHERS


def trained(distribution: Distribution) -> AdaptiveSchedule:
    schedule = AdaptiveSchedule(jitter=0)
    for duration in distribution.sample(500):
        schedule.learn(finished(0.0, duration))
    return schedule


def draw_polls(path: Path) -> None:
    """Draw a row of polls for each schedule, over the distribution that it learned from."""
    rows: list[tuple[str, Schedule, Distribution | None]] = [
        *((name, peer, None) for name, peer in PEERS.items()),
        ("ExponentialSchedule", ExponentialSchedule(jitter=0), None),
        ("AdaptiveSchedule, untrained", AdaptiveSchedule(jitter=0), None),
        *((it.name.replace(", ", "\n", 1), trained(it), it) for it in DISTRIBUTIONS),
    ]
    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for row, (_, schedule, distribution) in enumerate(rows):
        polls = [age for age in polls_at(schedule, UNTIL) if age <= UNTIL]
        if distribution is not None:
            shade(axes, row + 0.4, distribution)
        axes.vlines(polls, row - 0.25, row + 0.25, color=color_of(schedule), lw=1.3)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlim(-2, UNTIL)
    axes.set_xlabel("age of the job, in seconds")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    save(figure, path)


def shade(axes: Axes, base: float, distribution: Distribution) -> None:
    """Draw how many covers end at which age, upwards from `base` on an axis that points down."""
    ages = np.arange(0, UNTIL + 1)
    ending = np.array(
        [distribution.done_by(b) - distribution.done_by(a) for a, b in pairwise(ages)]
    )
    axes.fill_between(
        ages[1:], base, base - 0.8 * ending / ending.max(), color=ADAPTIVE, alpha=0.25, lw=0
    )


def draw_lag(path: Path) -> None:
    """Draw lag against polls: the nearer to the lower left corner, the better."""
    figure, panels = plt.subplots(
        1, len(DISTRIBUTIONS), figsize=(10, 3.9), sharex=True, sharey=True, layout="constrained"
    )
    for axes, distribution in zip(panels, DISTRIBUTIONS, strict=True):
        draw_trade_off(axes, distribution)
    panels[0].set_ylabel("mean lag, in seconds")
    panels[0].set_xticks([4, 8, 16, 32], ["4", "8", "16", "32"])
    panels[0].set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(figure, path)


def draw_trade_off(axes: Axes, distribution: Distribution) -> None:
    durations = distribution.sample(3000)

    def line(costs: list[tuple[float, float]], **style: Any) -> None:
        axes.plot([polls for _, polls in costs], [lag for lag, _ in costs], **style)

    def point(schedule: Schedule, name: str, color: str, **place: Any) -> None:
        lag, polls = lag_and_polls(schedule, durations)
        axes.plot(polls, lag, "o", ms=4.5, color=color)
        placed = {"xytext": (5, 4)} | place
        axes.annotate(
            name, (polls, lag), **placed, textcoords="offset points", color=color, fontsize=8
        )

    def adaptive(cost: float, maximum: float) -> tuple[float, float]:
        return lag_and_polls(AdaptiveSchedule(poll_cost=cost, max_delay=maximum), durations)

    best = [best_possible(distribution.done_by, cost) for cost in POLL_COSTS]
    normal, longer = ([adaptive(cost, maximum) for cost in POLL_COSTS] for maximum in (15, 60))
    name = "AdaptiveSchedule"
    line(normal, color=ADAPTIVE, lw=1.8, label=name)
    line(longer, color=ADAPTIVE, ls="--", label=f"{name}(max_delay=60)")
    line(best, color=OTHERS, ls=":", label="the optimum if the distribution were known")
    for name, peer in PEERS.items():
        point(peer, name, OTHERS, xytext=LABEL_OFFSETS.get(name, (5, 4)))
    point(ExponentialSchedule(), "ExponentialSchedule", EXPONENTIAL, xytext=(6, -3))
    point(AdaptiveSchedule(), "cost=0.3", ADAPTIVE, xytext=(-7, -5), ha="right", va="top")
    axes.set(xscale="log", yscale="log", title=distribution.name, xlabel="polls per cover")
    axes.minorticks_off()
