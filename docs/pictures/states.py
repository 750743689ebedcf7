"""The states of a song in the ledger: python docs/pictures/states.py docs/images

Needs matplotlib. The states are the package's own, and a missing one is an error.
"""

import sys
from io import StringIO
from pathlib import Path
from typing import cast

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Patch

from kie_cover_async.ledger import SongState

Point = tuple[float, float]

LINE, NOTE = "#8a8f98", "#3f4650"
# Where each state is, and its colour: work to do, the end, and what a person may have to settle.
STATES = {
    SongState.WANTED: (0.0, 2.0, "#1b6ca8"),
    SongState.SUBMITTING: (3.0, 2.0, "#1b6ca8"),
    SongState.SUBMITTED: (6.0, 2.0, "#1b6ca8"),
    SongState.KEPT: (9.0, 2.0, "#2e7d4f"),
    SongState.IN_DOUBT: (3.0, 0.0, "#b7791f"),
    SongState.FAILED: (6.0, 0.0, "#c8553d"),
}
# From, to, bend of the arrow, what it is called, where that is written, and on which side of it.
ARROWS = [
    ("wanted", "submitting", -0.3, "claimed, just before\nthe request", 1.5, 2.78, "center"),
    ("submitting", "wanted", -0.3, "not accepted", 1.95, 1.4, "center"),
    ("submitting", "submitted", 0.0, "the answer\nhas the id", 4.5, 2.3, "center"),
    ("submitted", "kept", 0.0, "all images\nare on disk", 7.55, 2.3, "center"),
    ("submitting", "in_doubt", 0.0, "no answer,\nor killed", 2.88, 0.85, "right"),
    ("in_doubt", "submitted", 0.0, "a callback\nnames the id", 4.65, 0.92, "left"),
    ("submitted", "failed", 0.0, "the job failed, or\nthe images are gone", 6.12, 1.0, "left"),
    ("in_doubt", "wanted", 0.0, "settle\n--submit-again", 1.1, 0.9, "right"),
    ("in_doubt", "failed", 0.0, "settle\n--give-up", 4.6, 0.3, "center"),
]


def draw_state(axes: Axes, state: SongState) -> Patch:
    x, y, color = STATES[state]
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color, "linewidth": 1.6}
    words = state.replace("_", " ")
    text = axes.text(x, y, words, ha="center", va="center", size=11, color=color, bbox=box)
    return cast("Patch", text.get_bbox_patch())


def draw_arrow(axes: Axes, begin: Patch, end: Patch, points: list[Point], bend: float) -> None:
    arrow = FancyArrowPatch(
        *points,
        patchA=begin,
        patchB=end,
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="-|>,head_length=5,head_width=2.5",
        color=LINE,
        linewidth=1.2,
        shrinkA=3,
        shrinkB=3,
        zorder=0,
    )
    axes.add_patch(arrow)


def main(folder: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "states"  # the same picture has the same text
    figure, axes = plt.subplots(figsize=(9.5, 3.4), layout="constrained")
    axes.set(xlim=(-1.1, 9.9), ylim=(-0.5, 3.0))
    axes.axis("off")
    boxes = {state: draw_state(axes, state) for state in SongState}
    figure.canvas.draw()  # the arrows end at the boxes, which have their size from here on
    for begin, end, bend, name, x, y, side in ARROWS:
        ends = SongState(begin), SongState(end)
        points = [STATES[state][:2] for state in ends]
        draw_arrow(axes, *(boxes[state] for state in ends), points, bend)
        axes.text(x, y, name, ha=side, va="center", size=8.5, color=NOTE)
    figure.savefig(svg := StringIO(), format="svg", metadata={"Date": None})
    lines = [line.rstrip() for line in svg.getvalue().splitlines()]
    (folder / "song-states.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
