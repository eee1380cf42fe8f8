"""One run: the choice of rows, their order, and the output."""

import importlib
import os
import re
import shlex
import sys
import time
from pathlib import Path

import document
import machine
import table
import workplace
from measure import Plan
from workplace import TREE

ROWS = Path(__file__).parent / "rows"


def main():
    """Runs the chosen rows; returns 0 if every contender answered correctly."""
    quick = os.environ.get("QUICK", "") not in ("", "0")
    asked = " ".join(sys.argv[1:]) or os.environ.get("ROWS", "")
    try:
        rows = choose(asked)
        is_whole = len(rows) == len(known())
        with workplace.make() as place:
            begin = time.monotonic()
            facts = [
                machine.first_line([str(place.wsgate), "--version"]),
                *machine.facts(place),
                machine.load(),
            ]
            print(machine.describe(place, command(asked, quick)), end="\n\n", flush=True)
            draws = document.prepare(place) if is_whole else None
            results = [measure(row, place, quick) for row in rows]
            print(table.render(results, quick), flush=True)
            if is_whole:
                # A quick run writes the page beside the tree, to show that it can.
                directory = place.directory if quick else TREE / "docs"
                facts.append(f"{(time.monotonic() - begin) / 60:.0f} minutes")
                document.write(draws, directory, place, facts, rows, results)
    except workplace.Unfit as unfit:
        print(f"benches/run: error: {unfit}", file=sys.stderr)
        return 1
    return 1 if any(result.failures for result in results) else 0


def measure(row, place, quick):
    begin = time.monotonic()
    print(f"{row.ID}: {row.TITLE} …", file=sys.stderr, flush=True)
    result = row.run(place, Plan(quick))
    print(f"{row.ID}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return result


def choose(asked):
    """The row modules that `asked` names, such as `P1,P11`; all if it names none."""
    there = known()
    names = [name.upper() for name in re.split(r"[,\s]+", asked) if name]
    unknown = [name for name in names if name not in there]
    if unknown:
        raise workplace.Unfit(f"there is no row `{unknown[0]}`; there are {', '.join(there)}")
    return [there[name] for name in names or there]


def known():
    """All row modules by name."""
    return {row.ID: row for row in map(load, sorted(ROWS.glob("p[0-9]*.py")))}


def load(path):
    return importlib.import_module(f"rows.{path.stem}")


def command(asked, quick):
    """The command that repeats this run."""
    words = ["QUICK=1"] * quick + ["make", "bench"] + [f"ROWS={asked}"] * bool(asked)
    return shlex.join(words)
