"""One run of the bench: which rows, in which order, and what is printed about them."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import machine
import table
import workplace
from measure import Plan

ROWS = Path(__file__).parent / "rows"


def main():
    """Runs the rows that were asked for; 0 if every contender ran and replied as it should."""
    quick = os.environ.get("QUICK", "") not in ("", "0")
    asked = " ".join(sys.argv[1:]) or os.environ.get("ROWS", "")
    try:
        rows = choose(asked)
        with workplace.make() as place:
            print(machine.describe(place, command(asked, quick)), end="\n\n", flush=True)
            results = []
            for row in rows:
                print(f"{row.ID}: {row.TITLE} …", file=sys.stderr, flush=True)
                results.append(row.run(place, Plan(quick)))
    except workplace.Unfit as unfit:
        print(f"benches/run: error: {unfit}", file=sys.stderr)
        return 1
    print(table.render(results, quick))
    return 1 if any(result.failures for result in results) else 0


def choose(asked):
    """The row modules that `asked` names, such as `P1,P11`; all of them if it names none."""
    known = {row.ID: row for row in map(load, sorted(ROWS.glob("p[0-9]*.py")))}
    names = [name.upper() for name in re.split(r"[,\s]+", asked) if name]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise workplace.Unfit(f"there is no row `{unknown[0]}`; there are {', '.join(known)}")
    return [known[name] for name in names or known]


def load(path):
    return importlib.import_module(f"rows.{path.stem}")


def command(asked, quick):
    """What to type to have this run again."""
    words = ["QUICK=1"] * quick + ["make", "bench"] + [f"ROWS={asked}"] * bool(asked)
    return shlex.join(words)
