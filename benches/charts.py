"""Draws the charts of `docs/benchmarks.md`: charts.py FILE. document.py writes FILE.

The same figures make the same bytes. Text stays text, and the background is transparent.
"""

import json
import sys

import matplotlib
from matplotlib.figure import Figure

# Readable on white and on black.
INK = "#76808a"
OURS = "#3fae8a"
THEIRS = "#b9c0c7"

# In inches.
WIDTH = 8.0
BAR = 0.26
AROUND = 0.75

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        # Element ids derive from this alone, so that they do not change.
        "svg.hashsalt": "wsgate",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
)


def draw(chart):
    """Draws one file, with its panels below each other."""
    panels = chart["panels"]
    heights = [AROUND + BAR * max(1, len(panel["bars"])) for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for (ax,), panel in zip(axes, panels):
        fill(ax, panel)
    figure.savefig(
        chart["file"], format="svg", transparent=True, metadata={"Date": None, "Creator": None}
    )


def fill(ax, panel):
    bars = panel["bars"]
    names = [bar["name"] for bar in bars]
    values = [bar["value"] for bar in bars]
    spread = [
        [max(0, bar["value"] - bar["low"]) for bar in bars],
        [max(0, bar["high"] - bar["value"]) for bar in bars],
    ]
    colours = [OURS if name.startswith("wsgate") else THEIRS for name in names]
    drawn = ax.barh(
        range(len(bars)),
        values,
        color=colours,
        xerr=spread,
        error_kw={"ecolor": INK, "elinewidth": 1},
    )
    ax.bar_label(drawn, [bar["text"] for bar in bars], padding=4)
    ax.set_yticks(range(len(bars)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    ax.set_title(panel["title"], loc="left", fontsize=9, color=INK)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


for one in json.loads(open(sys.argv[1], encoding="utf-8").read()):
    draw(one)
