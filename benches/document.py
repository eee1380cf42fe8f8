"""Writes `docs/benchmarks.md` and its charts from the results of a whole run."""

import json
import shlex
import shutil
import textwrap
from collections import Counter

import peers
import table
from workplace import HERE, PYTHON, TREE, Unfit, call, check

NAME = "benchmarks"

CELLS = ("row", "what", "against", "ratio", "middle half", "goal", "", "figure", "the other's")

# Name of each unit, and which direction is better.
UNITS = {
    "/s": "requests a second: more is better",
    " ms": "milliseconds: less is better",
    " µs": "microseconds: less is better",
    " MiB": "MiB: less is better",
    "": "a ratio: less is better",
}

UNKNOWN = "the reason is not known. If the row is unstable above, repeat it on a quieter machine."

HEAD = """\
# Benchmarks

<!-- Written by `make bench`, as all of benchmarks/. Change the text in benches/. -->

Repeat this page on your machine with `make bench`, or one row with `make bench ROWS=P1`.

This page is one run of all rows. [benches/README.md](../benches/README.md) describes each row and
how it is measured. Compare ratios, not figures: the figures are medians of this run on this
machine.

| column | meaning |
|---|---|
| ratio | wsgate's figure divided by the other's, as the median of all turns |
| middle half | the ratios from the first to the third quartile |
| goal | a small ratio is good for times and memory, a large one for requests a second |
| unstable | the middle half is wider than a tenth of the median: repeat the row |

In commands, TREE is the source tree and PLACE is the directory of the run. The configurations in
PLACE are those of benches/web_servers and benches/*.conf.
"""

NOT_SHOWN = """\
## What the rows do not show

- **Other machines.** Load, web server and servers share the few processors of one machine: a
  server that uses less leaves more to the others. A network, TLS, HTTP/2 or many processors may
  change the order.
- **Pages that do something.** The pages are the smallest possible. A page that waits for a database
  or computes something takes the same time behind each of these servers.
- **Slow clients.** All clients read their responses at once.
- **Threads and coroutines.** gunicorn, granian, uWSGI and mod_wsgi offer more than is measured.
  Each is set up as its documentation advises for processes of one thread; experts may get more
  out of it.
- **Long runs.** No server runs for longer than minutes, so nothing is said about memory after a
  week.
"""


def prepare(place):
    """Installs the library for the charts, in a virtualenv apart from the contenders'."""
    venv = place.directory / "charts"
    check([PYTHON, "-m", "venv", str(venv)])
    peers.install_by_pip(venv, "matplotlib")
    return venv / "bin/python"


def write(python, directory, place, facts, rows, results):
    """Writes the document of `results` into `directory`, and the charts below it."""
    charts = directory / NAME
    shutil.rmtree(charts, ignore_errors=True)
    charts.mkdir(parents=True)
    draw(python, charts, results)
    parts = [
        HEAD,
        listed(facts),
        overview(results),
        held(rows, results),
        failed(results),
        NOT_SHOWN,
    ]
    parts += ["## The rows\n", *(section(place, result) for result in results)]
    (directory / f"{NAME}.md").write_text("\n".join(filter(None, parts)))


def listed(facts):
    return "".join(f"- {fact}\n" for fact in facts)


def overview(results):
    """The table of all ratios."""
    lines = [
        table.line(result.row, ratio, quick=False) for result in results for ratio in result.ratios
    ]
    rows = [CELLS, ["---"] * len(CELLS), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def held(rows, results):
    """The reasons for missed goals, as the modules of the rows state them."""
    lines = []
    for row, result in zip(rows, results):
        missed = [ratio for ratio in result.ratios if ratio.is_met is False]
        if missed:
            against = " and ".join(who(ratio) for ratio in missed)
            lines.append(
                wrapped(f"- **{row.ID}**, {against}: {getattr(row, 'HELD', UNKNOWN)}", "  ") + "\n"
            )
    return "".join(["## Why goals were missed\n\n", *lines]) if lines else ""


def who(ratio):
    return f"against {ratio.against.contender.name}" if ratio.against else ratio.ours.contender.name


def failed(results):
    lines = [
        f"- **{result.row}**, {count} ×: {failure.splitlines()[0]}\n"
        for result in results
        for failure, count in Counter(result.failures).most_common(table.MOST_SHOWN)
    ]
    return "".join(["## Failures, which do not count\n\n", *lines]) if lines else ""


def section(place, result):
    """A row: how to repeat it, its chart, its commands."""
    title = wrapped(f"{result.title[0].upper()}{result.title[1:]}.")
    lines = [f"### {result.row}\n", f"{title}\n`make bench ROWS={result.row}`\n"]
    lines.append(
        f"![{result.row}: medians of the turns, with their middle half]"
        f"({NAME}/{chart_name(result)})\n"
    )
    if result.notes:
        lines.append(f"With {anywhere(place, result.notes.removeprefix('with '))}.\n")
    lines.append("<details><summary>commands</summary>\n\n```")
    for figures in result.figures:
        lines.append(f"# {figures.contender.name}: {table.figure(figures)}")
        lines += [said(place, argv) for argv in table.commands(figures.contender)]
    lines.append("```\n\n</details>\n")
    return "\n".join(lines)


def wrapped(text, indent=""):
    """A paragraph of Markdown; `indent` stands before all lines but the first."""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def said(place, argv):
    return anywhere(place, shlex.join(map(str, argv)))


def anywhere(place, text):
    """Replaces paths that differ between runs and machines."""
    return text.replace(str(place.directory), "PLACE").replace(str(TREE), "TREE")


def chart_name(result):
    return f"{result.row.lower()}.svg"


def draw(python, directory, results):
    """Starts the program that draws the charts, which has the library."""
    charts = [
        {"file": str(directory / chart_name(result)), "panels": panels(result)}
        for result in results
    ]
    (directory / "charts.json").write_text(json.dumps(charts))
    done = call([str(python), str(HERE / "charts.py"), str(directory / "charts.json")])
    if done.returncode != 0:
        raise Unfit(f"the charts cannot be drawn:\n{done.stdout.decode('utf-8', 'replace')}")
    (directory / "charts.json").unlink()


def panels(result):
    """The figures of a row, grouped by what can be compared."""
    found = {}
    for figures in result.figures:
        contender = figures.contender
        panel = getattr(contender, "panel", "")
        bars = found.setdefault((panel, contender.unit), [])
        if figures.median is not None:
            name = contender.name.replace(f" ({panel})", "")
            low, high = figures.middle_half
            bars.append(
                {
                    "name": name,
                    "value": figures.median,
                    "text": table.figure(figures),
                    "low": low,
                    "high": high,
                }
            )
    return [
        {"title": f"{panel}, {UNITS[unit]}" if panel else UNITS[unit], "bars": bars}
        for (panel, unit), bars in found.items()
    ]
