"""The table that a run prints, as plain text."""

import shlex
from collections import Counter

# Limit of different failures that a row shows.
MOST_SHOWN = 5

HEAD = ("row", "what", "against", "ratio", "middle half", "goal", "", "figure", "the other's")


def render(results, quick):
    """The output for `results`."""
    rows = [line(result.row, ratio, quick) for result in results for ratio in result.ratios]
    parts = [columns([HEAD, *rows])]
    parts += [section(result) for result in results]
    if quick:
        parts.append("A quick run checks that everything runs; its figures have no meaning.")
    return "\n\n".join(parts)


def line(row, ratio, quick):
    first, third = ratio.middle_half
    ours, against = ratio.ours, ratio.against
    return (
        row,
        ours.contender.name,
        against.contender.name if against else "–",
        number(ratio.median) + ratio.unit,
        "–" if first is None else f"{number(first)}–{number(third)}",
        goal(ratio),
        "–" if quick else verdict(ratio),
        figure(ours),
        figure(against) if against else "–",
    )


def verdict(ratio):
    if ratio.median is None:
        return "failed"
    failures = [figures.failures for figures in (ratio.ours, ratio.against) if figures]
    remarks = [
        {True: "met", False: "missed", None: ""}[ratio.is_met],
        "unstable" if ratio.is_unstable else "",
        "with failures" if any(failures) else "",
    ]
    return ", ".join(filter(None, remarks))


def goal(ratio):
    if ratio.goal is None:
        return "–"
    return f"{'≥' if ratio.goal_is_least else '≤'} {ratio.goal:.2f}{ratio.unit}"


def section(result):
    """Commands, further figures and failures of a row."""
    lines = [f"{result.row}: {result.title}"]
    for figures in result.figures:
        contender = figures.contender
        words = " behind ".join(
            f"`{shlex.join(map(str, argv))}`" for argv in reversed(commands(contender))
        )
        lines.append(f"  {contender.name}: {figure(figures)}, {words}")
    lines += [f"  {result.notes}"] * bool(result.notes)
    lines += [
        f"  failed {count} ×: {failure}"
        for failure, count in Counter(result.failures).most_common(MOST_SHOWN)
    ]
    return "\n".join(lines)


def commands(contender):
    """The commands of a contender, the web server's first."""
    return getattr(contender, "commands", (contender.argv,))


def figure(figures):
    """The median of a contender, with its unit."""
    if figures.median is None:
        return "–"
    text = f"{figures.median:,.0f}" if figures.median >= 1000 else number(figures.median)
    return f"{text}{figures.contender.unit}"


def number(value):
    return "–" if value is None else f"{value:.2f}"


def columns(rows):
    """`rows` with their cells below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
