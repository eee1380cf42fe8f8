"""A whole process as a contender: starts, reads, waits, compares, times."""

import os
import signal
import statistics
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program, and its expected result."""

    name: str
    argv: tuple
    environment: dict
    # Exit status and standard output.
    status: int = 0
    output: bytes = b""
    # Converts the output for the comparison with `output`.
    compared: object = bytes
    unit: str = " ms"


@dataclass(frozen=True)
class Run:
    """One run of a program."""

    seconds: float
    status: int
    output: bytes


def batch(program, runs, errors):
    """Runs `program` `runs` times; returns the median in milliseconds, and the failures.

    A failed run does not count. `errors` is an open file for standard error.
    """
    times = []
    failures = []
    for _ in range(runs):
        os.ftruncate(errors.fileno(), 0)
        result = run(program, errors.fileno())
        complaint = what_is_wrong(program, result)
        if complaint is None:
            times.append(result.seconds * 1000)
        else:
            failures.append(f"{complaint}{said(errors)}")
    return (statistics.median(times) if times else None), failures


def run(program, errors):
    """Runs `program` once. Its standard input is an empty pipe, as for a GET request."""
    stdin, stdins_end = os.pipe()
    stdout, stdouts_end = os.pipe()
    os.close(stdins_end)
    # Descriptors of `os.pipe` are closed on exec, unless they are duplicated.
    in_place = [
        (os.POSIX_SPAWN_DUP2, source, place)
        for place, source in enumerate((stdin, stdouts_end, errors))
    ]
    pieces = []
    start = time.perf_counter()
    # Python ignores SIGPIPE; the child of a web server does not.
    pid = os.posix_spawn(
        program.argv[0],
        program.argv,
        program.environment,
        file_actions=in_place,
        setsigdef=(signal.SIGPIPE,),
    )
    os.close(stdouts_end)
    while piece := os.read(stdout, 65536):
        pieces.append(piece)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - start
    os.close(stdin)
    os.close(stdout)
    return Run(seconds, os.waitstatus_to_exitcode(status), b"".join(pieces))


def what_is_wrong(program, result):
    if result.status != program.status:
        return f"ended with {result.status} in place of {program.status}"
    if program.compared(result.output) != program.output:
        return f"answered {result.output[:500]!r}"
    return None


def said(errors):
    text = os.pread(errors.fileno(), 2000, 0).decode("utf-8", "replace").strip()
    return f"\n{text}" if text else ""
