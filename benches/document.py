"""`docs/benchmarks.md` and its charts: what a whole run has found, for those who have not run it."""

import json
import shlex
import shutil
from collections import Counter

import peers
import table
from workplace import HERE, PYTHON, TREE, Unfit, call, check

NAME = "benchmarks"

CELLS = ("row", "what", "against", "ratio", "middle half", "goal", "", "figure", "the other's")

# What is read first of a unit, and what is better.
UNITS = {
    "/s": "requests a second: more is better",
    " ms": "milliseconds: less is better",
    " µs": "microseconds: less is better",
    " MiB": "MiB: less is better",
}

UNKNOWN = "not known; if it is unstable above, a quieter machine may say otherwise."

HEAD = """\
# Benchmarks

<!-- Written by `make bench`, as all of benchmarks/. Changes belong into benches/. -->

One run of `make bench` from its first row to its last. A *ratio* is ours by theirs, of figures that were taken in turn,
the median of all turns; *middle half* is from the first to the third quartile of these ratios. What is *unstable* has a
middle half wider than a tenth of its median, and wants a quieter machine. Of times and memory a small ratio is good, of
requests a second a large one; the goal says which. [benches/README.md](../benches/README.md) says how it is measured and
what each row is. The two figures are medians of this run on this machine: compare ratios, not figures. In commands, TREE is
the source tree and PLACE the run's own directory; the configurations in it are those of benches/fronts and benches/*.conf.
"""

NOT_SHOWN = """\
## What the rows do not show

All of it is one machine, with the load, the web server and the servers on the same few processors: whoever takes less
leaves more to the others, and a network, TLS, HTTP/2 or many processors may change the order. The pages are the smallest there
are. A page that waits for a database or computes something takes the same time behind any of these servers, and the
differences shrink to nothing beside that. All clients read at once what they are sent: nothing is said about slow
ones. Nobody uses threads here, or coroutines, where gunicorn, granian, uWSGI and mod_wsgi have more to choose from
than is measured; each is set up as its documentation advises for processes of one thread, and who knows it better may
get more out of it.
Nothing runs for longer than minutes, so nothing is said about memory after a week. And a server that is fast here
and is wrong about something else that you need is of no use to you.
"""


def prepare(place):
    """Installs what draws the charts; first, so that no run is lost for that. The contenders' virtualenv is another."""
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
    parts = [HEAD, listed(facts), overview(results), held(rows, results), failed(results), NOT_SHOWN]
    parts += ["## The rows\n", *(section(place, result) for result in results)]
    (directory / f"{NAME}.md").write_text("\n".join(filter(None, parts)))


def listed(facts):
    return "".join(f"- {fact}\n" for fact in facts)


def overview(results):
    """One table of all claims."""
    lines = [table.line(result.row, ratio, quick=False) for result in results for ratio in result.ratios]
    rows = [CELLS, ["---"] * len(CELLS), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def held(rows, results):
    """What keeps us from goals that are missed, as the modules of the rows know it."""
    lines = []
    for row, result in zip(rows, results):
        missed = [ratio for ratio in result.ratios if ratio.is_met is False]
        if missed:
            against = " and ".join(who(ratio) for ratio in missed)
            lines.append(f"- **{row.ID}**, {against}: {getattr(row, 'HELD', UNKNOWN)}\n")
    return "".join(["## What holds those that are missed\n\n", *lines]) if lines else ""


def who(ratio):
    return f"against {ratio.against.contender.name}" if ratio.against else ratio.ours.contender.name


def failed(results):
    lines = [
        f"- **{result.row}**, {count} ×: {failure.splitlines()[0]}\n"
        for result in results
        for failure, count in Counter(result.failures).most_common(table.MOST_SHOWN)
    ]
    return "".join(["## What failed, and does not count\n\n", *lines]) if lines else ""


def section(place, result):
    """A row: how to have it again, its chart, what was run for it."""
    lines = [f"### {result.row}\n", f"{result.title[0].upper()}{result.title[1:]}. `make bench ROWS={result.row}`\n"]
    lines.append(f"![{result.row}: medians of the turns, with their middle half]({NAME}/{chart_name(result)})\n")
    if result.notes:
        lines.append(f"With {anywhere(place, result.notes.removeprefix('with '))}.\n")
    lines.append("<details><summary>what was run</summary>\n\n```")
    for figures in result.figures:
        lines.append(f"# {figures.contender.name}: {table.figure(figures)}")
        lines += [said(place, argv) for argv in table.commands(figures.contender)]
    lines.append("```\n\n</details>\n")
    return "\n".join(lines)


def said(place, argv):
    return anywhere(place, shlex.join(map(str, argv)))


def anywhere(place, text):
    """The text without what is another one in each run, and on each machine."""
    return text.replace(str(place.directory), "PLACE").replace(str(TREE), "TREE")


def chart_name(result):
    return f"{result.row.lower()}.svg"


def draw(python, directory, results):
    """Has the charts drawn by a program of their own, which has the library."""
    charts = [{"file": str(directory / chart_name(result)), "panels": panels(result)} for result in results]
    (directory / "charts.json").write_text(json.dumps(charts))
    done = call([str(python), str(HERE / "charts.py"), str(directory / "charts.json")])
    if done.returncode != 0:
        raise Unfit(f"the charts cannot be drawn:\n{done.stdout.decode('utf-8', 'replace')}")
    (directory / "charts.json").unlink()


def panels(result):
    """The figures of a row, those together that can be compared."""
    found = {}
    for figures in result.figures:
        contender = figures.contender
        panel = getattr(contender, "panel", "")
        bars = found.setdefault((panel, contender.unit), [])
        if figures.median is not None:
            name = contender.name.replace(f" ({panel})", "")
            low, high = figures.middle_half
            bars.append({"name": name, "value": figures.median, "text": table.figure(figures), "low": low, "high": high})
    return [
        {"title": f"{panel}, {UNITS[unit]}" if panel else UNITS[unit], "bars": bars}
        for (panel, unit), bars in found.items()
    ]
