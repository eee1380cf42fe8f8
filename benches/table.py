"""The table that a run prints: plain text, for people and for a file."""

import shlex
from collections import Counter

# Most different failures that are shown of one row.
MOST_SHOWN = 5

HEAD = ("row", "what", "against", "ratio", "middle half", "goal", "", "ms", "against ms")


def render(results, quick):
    """Everything there is to say about `results`."""
    rows = [line(result.row, ratio, quick) for result in results for ratio in result.ratios]
    parts = [columns([HEAD, *rows])]
    parts += [section(result) for result in results]
    if quick:
        parts.append("A quick run shows that everything runs; its figures say nothing.")
    return "\n\n".join(parts)


def line(row, ratio, quick):
    first, third = ratio.middle_half
    ours, against = ratio.ours, ratio.against
    return (
        row,
        ours.contender.name,
        against.contender.name,
        number(ratio.median),
        "–" if first is None else f"{number(first)}–{number(third)}",
        f"≤ {ratio.goal:.2f}",
        "–" if quick else verdict(ratio),
        number(ours.median),
        number(against.median),
    )


def verdict(ratio):
    if ratio.median is None:
        return "failed"
    remarks = [
        "met" if ratio.is_met else "missed",
        "unstable" if ratio.is_unstable else "",
        "with failures" if ratio.ours.failures or ratio.against.failures else "",
    ]
    return ", ".join(filter(None, remarks))


def section(result):
    """What was run for a row, what was measured beside it, and what failed."""
    lines = [f"{result.row}: {result.title}"]
    for figures in result.figures:
        contender = figures.contender
        lines.append(f"  {contender.name}: {number(figures.median)} ms, `{shlex.join(map(str, contender.argv))}`")
    lines += [f"  failed {count} ×: {failure}" for failure, count in Counter(result.failures).most_common(MOST_SHOWN)]
    return "\n".join(lines)


def number(value):
    return "–" if value is None else f"{value:.2f}"


def columns(rows):
    """`rows` with their cells below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
