"""Reports everything that an application can see and do, as JSON: once as a plain program,
once under CGIHandler, and once in each mode of wsgate. Nothing in a report may differ between two
runs of the same program: process ids, times and addresses become what is true of them."""

import array
import asyncio
import atexit
import codecs
import csv
import ctypes
import ctypes.util
import dbm.dumb
import decimal
import faulthandler
import functools
import gc
import gzip
import json
import locale
import logging
import multiprocessing
import multiprocessing.util
import os
import random
import re
import resource
import secrets
import shelve
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import uuid
import warnings
import weakref
import wsgiref.handlers
import wsgiref.util

HERE = os.path.dirname(os.path.abspath(__file__))
RECORD = os.open(os.path.join(HERE, "record"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
LOADED_BY = os.getpid()
LIBC = ctypes.CDLL(None, use_errno=True)
FACTS = {}
REQUESTS = []


def fact(name):
    """Registers a function whose result is the fact `name`; a dict is one fact for each key."""

    def register(function):
        FACTS[name] = function
        return function

    return register


def record(event, *of):
    os.write(RECORD, (json.dumps([event, os.getpid(), *of]) + "\n").encode())


def kept(name):
    return os.path.join(HERE, "kept-" + name)


# What an import leaves behind.

atexit.register(record, "atexit of the import", LOADED_BY)


class Leaving:
    pass


LEAVING = Leaving()
weakref.finalize(LEAVING, record, "finalizer of the import", LOADED_BY)
multiprocessing.util.Finalize(
    None, record, ("multiprocessing's of the import", LOADED_BY), exitpriority=1
)
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(record, "threading's of the import", LOADED_BY)


class Deleted:
    """Tells when it is deleted, by means that are still there then."""

    def __init__(self, event, of):
        self.before, self.after = ("[%s, " % json.dumps(event)).encode(), (", %d]\n" % of).encode()

    def __del__(self, write=os.write, where=RECORD, getpid=os.getpid):
        write(where, self.before + b"%d" % getpid() + self.after)


DELETED_GLOBAL = Deleted("deleted global of the import", LOADED_BY)
TEXT = open(kept("text"), "a")
BINARY = open(kept("binary"), "ab")
TABLE = open(kept("table.csv"), "a", newline="")
ZIPPED = gzip.open(kept("zipped.gz"), "ab")
DIRECTORY = tempfile.TemporaryDirectory(prefix="kept-directory-", dir=HERE)
GENERATOR = random.Random()
SEEDED = random.Random(7)
STATE = {"left": []}


def requested(environ):
    """The query of the request; a plain program has it in its environment."""
    return environ.get("QUERY_STRING", os.environ.get("QUERY_STRING"))


def described(value):
    """`value` without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def kind(descriptor):
    try:
        target = os.readlink("/proc/self/fd/%s" % descriptor)
    except OSError:
        return "closed"
    return re.sub(r":?\[\d+\]$", "", target.replace(HERE, "HERE"))


def descriptors():
    """Kinds of the open descriptors above 2, without this module's own and the one for the list."""
    own = {RECORD, TEXT.fileno(), BINARY.fileno(), TABLE.fileno(), ZIPPED.fileno()}
    with os.scandir("/proc/self/fd") as entries:
        numbers = sorted(int(entry.name) for entry in entries)
    kinds = [kind(number) for number in numbers if number > 2 and number not in own]
    return [each for each in kinds if not re.search(r"^/proc/\d+/fd$|^closed$", each)]


def status(*names, of="self"):
    with open("/proc/%s/status" % of) as lines:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
    return {name: fields.get(name, "").strip() for name in names}


def signals(mask):
    """Names of the signals in a mask of /proc, without those of Python and the C library."""
    numbers = [number for number in range(1, 65) if int(mask, 16) >> (number - 1) & 1]
    return [signal.Signals(number).name if number < 32 else str(number) for number in numbers]


def dispositions(of="self"):
    found = status("SigBlk", "SigIgn", "SigCgt", of=of)
    return {
        "blocked": signals(found["SigBlk"]),
        "ignored": signals(found["SigIgn"]),
        "caught": signals(found["SigCgt"]),
    }


def prctl(option):
    value = ctypes.c_int(0)
    # Some give their value back, others put it where an argument says.
    result = LIBC.prctl(option, ctypes.byref(value), 0, 0, 0)
    return value.value if option in (2, 37) else result


def in_child(work, seconds=15):
    """What `work` returns in a child that is forked for it, or how the child ended."""
    ends = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(ends[0])
            result = json.dumps(work())
            os.write(ends[1], result.encode())
            code = 0
        except BaseException as error:
            os.write(ends[1], json.dumps(described(error)).encode())
        finally:
            os._exit(code)
    os.close(ends[1])
    deadline = time.monotonic() + seconds
    while True:
        done, ended = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            try:
                os.killpg(child, signal.SIGKILL)
            except OSError:
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ends[0])
            return "hangs"
        time.sleep(0.005)
    with open(ends[0], "rb") as pipe:
        said = pipe.read().decode()
    if os.WIFSIGNALED(ended):
        return "killed by " + signal.Signals(os.WTERMSIG(ended)).name
    return json.loads(said)


def in_program(code):
    """What the Python program `code` prints as JSON. The program gets all descriptors."""
    command = [sys.executable, "-S", "-E", "-c", "import json, os, sys\n" + code]
    done = subprocess.run(command, stdout=subprocess.PIPE, close_fds=False, timeout=30)
    return json.loads(done.stdout or "null")


# Environment.


@fact("os.environ")
def _(environ):
    return {name: value for name, value in os.environ.items()}


@fact("environment in bytes and in C")
def _(environ):
    LIBC.getenv.restype = ctypes.c_char_p
    pairs = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    return {
        "os.environb is os.environ": dict(os.environb) == pairs,
        "getenv() is os.environ": all(LIBC.getenv(name) == value for name, value in pairs.items()),
    }


@fact("environment of a program")
def _(environ):
    done = subprocess.run(["/usr/bin/env", "-0"], stdout=subprocess.PIPE, timeout=30)
    pairs = dict(line.split(b"=", 1) for line in done.stdout.split(b"\0") if line)
    ours = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    return sorted(
        os.fsdecode(name) for name in set(pairs.items()) ^ set(ours.items()) for name in name[:1]
    )


@fact("environ")
def _(environ):
    return {
        name: value for name, value in environ.items() if not re.match("wsgi\\.|wsgate\\.", name)
    }


@fact("environ, keys with a dot")
def _(environ):
    return {
        name: described(value) if isinstance(value, (bool, str, tuple)) else "an object"
        for name, value in environ.items()
        if re.match("wsgi\\.|wsgate\\.", name)
    }


@fact("URLs")
def _(environ):
    return {
        "request_uri": wsgiref.util.request_uri(environ),
        "application_uri": wsgiref.util.application_uri(environ),
    }


@fact("cwd")
def _(environ):
    return os.getcwd()


@fact("umask")
def _(environ):
    mask = os.umask(0)
    os.umask(mask)
    return oct(mask)


# The interpreter.


@fact("sys")
def _(environ):
    main = sys.modules.get("__main__")
    return {
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "path": sys.path,
        "flags": described(sys.flags),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "warnoptions": sys.warnoptions,
        "_xoptions": sys._xoptions,
        "pycache_prefix": sys.pycache_prefix,
        "dont_write_bytecode": sys.dont_write_bytecode,
        "switchinterval": sys.getswitchinterval(),
        "recursionlimit": sys.getrecursionlimit(),
        "int_max_str_digits": getattr(sys, "get_int_max_str_digits", int)(),
        "excepthook": described(sys.excepthook),
        "unraisablehook": described(sys.unraisablehook),
        "displayhook": described(sys.displayhook),
        "breakpointhook": described(sys.breakpointhook),
        "trace and profile": described((sys.gettrace(), sys.getprofile())),
        "meta_path": described(sys.meta_path),
        "path_hooks": len(sys.path_hooks),
        "modules": sorted(
            name for name in sys.modules if "." not in name and name not in (__name__, "__main__")
        ),
        "asyncgen_hooks": described(sys.get_asyncgen_hooks()),
        "builtins": sorted(set(dir(__import__("builtins"))))[:3]
        + [len(dir(__import__("builtins")))],
        "__main__ has": (
            sorted(name for name in vars(main) if name.startswith("__")) if main else None
        ),
        "__main__.__file__": getattr(main, "__file__", None),
    }


@fact("module")
def _(environ):
    own = sys.modules.get(__name__)
    return {
        "__name__": __name__,
        "__file__": __file__,
        "__spec__": described(__spec__ and type(__spec__).__name__),
        "__builtins__": type(__builtins__).__name__,
        "is in sys.modules": own is not None and vars(own) is globals(),
    }


@fact("callers of the application")
def _(environ):
    frames = traceback.extract_stack()
    own = [place for place, frame in enumerate(frames) if frame.name in ("application", "observe")]
    return [os.path.basename(frame.filename) + " " + frame.name for frame in frames[: own[0]]]


@fact("gc")
def _(environ):
    return {
        "enabled": gc.isenabled(),
        "threshold": gc.get_threshold(),
        "frozen": gc.get_freeze_count() > 0,
        "callbacks": len(gc.callbacks),
        "debug": gc.get_debug(),
    }


@fact("faulthandler")
def _(environ):
    return faulthandler.is_enabled()


@fact("warnings.filters")
def _(environ):
    return described(warnings.filters)


@fact("logging")
def _(environ):
    return described(
        (logging.root.handlers, logging.root.level, logging.raiseExceptions, logging.lastResort)
    )


@fact("context")
def _(environ):
    return {
        "decimal": described(decimal.getcontext()),
        "socket timeout": socket.getdefaulttimeout(),
        "codecs": codecs.lookup_error("strict").__name__,
    }


# Threads.


@fact("thread")
def _(environ):
    return {
        "is main_thread()": threading.current_thread() is threading.main_thread(),
        "name": threading.current_thread().name,
        "is the process's first": threading.get_native_id() == os.getpid(),
        "names of all": sorted(thread.name for thread in threading.enumerate()),
        "are in the process": int(status("Threads")["Threads"]),
        "stack_size()": threading.stack_size(),
        "daemon": threading.current_thread().daemon,
        "excepthook": described(threading.excepthook),
        "can set signal handlers": attempt(
            lambda: bool(signal.signal(signal.SIGWINCH, signal.SIG_DFL) or True)
        ),
    }


@fact("stack")
def _(environ):
    attributes = ctypes.create_string_buffer(256)
    LIBC.pthread_self.restype = ctypes.c_void_p
    LIBC.pthread_getattr_np(ctypes.c_void_p(LIBC.pthread_self()), attributes)
    address, size = ctypes.c_void_p(), ctypes.c_size_t()
    LIBC.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
    of_started = []
    started = threading.Thread(target=lambda: of_started.append(described(attempt(deep))))
    started.start()
    started.join()
    return {
        "MiB": round(size.value / 2**20),
        "recursion through C": in_child(deep),
        "the same in a thread that is started": of_started,
    }


def deep():
    def compare(one, other):
        sorted((1, 2), key=functools.cmp_to_key(compare))
        return 0

    try:
        compare(1, 2)
    except RecursionError:
        return "RecursionError"


def attempt(work):
    try:
        return work()
    except Exception as error:
        return described(error)


@fact("asyncio")
def _(environ):
    async def work():
        process = await asyncio.create_subprocess_exec("/bin/true")
        return await process.wait()

    async def handler():
        asyncio.get_running_loop().add_signal_handler(signal.SIGURG, int)
        return asyncio.get_running_loop().remove_signal_handler(signal.SIGURG)

    ran = asyncio.run(work())
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid-"):
            thread.join()
    return {"runs a program": ran, "has signal handlers": attempt(lambda: asyncio.run(handler()))}


# Signals.


@fact("signal handlers")
def _(environ):
    return {sign.name: described(signal.getsignal(sign)) for sign in sorted(signal.Signals)}


@fact("signals")
def _(environ):
    found = dispositions()
    found["pthread_sigmask"] = sorted(
        int(sign) for sign in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    )
    found["timers"] = described([signal.getitimer(timer) for timer in (0, 1, 2)])
    found["wake-up descriptor"] = attempt(lambda: signal.set_wakeup_fd(-1))
    return found


@fact("signals of a program")
def _(environ):
    return in_program(
        "print(json.dumps(dict(line.split(':\\t') "
        "for line in open('/proc/self/status').read().splitlines()"
        " if line.startswith(('SigBlk', 'SigIgn')))))"
    )


@fact("signals of a fork")
def _(environ):
    found = in_child(
        lambda: {
            **dispositions(),
            "wake-up descriptor": attempt(lambda: signal.set_wakeup_fd(-1)),
            "handlers": {sign.name: described(signal.getsignal(sign)) for sign in signal.Signals},
            "timers": described([signal.getitimer(timer) for timer in (0, 1, 2)]),
        }
    )
    found["handlers"] = {
        name: handler for name, handler in found["handlers"].items() if "SIG_DFL" not in handler
    }
    return found


# The process.


@fact("process")
def _(environ):
    return {
        "leads its session": os.getsid(0) == os.getpid(),
        "leads its group": os.getpgrp() == os.getpid(),
        "signal at its parent's death": prctl(2),
        "dumpable": prctl(3),
        "adopts orphans": prctl(37),
        "no_new_privs": LIBC.prctl(39, 0, 0, 0, 0),
        "nice": os.nice(0),
        "scheduler": os.sched_getscheduler(0),
        "ioprio": LIBC.syscall(252 if os.uname().machine == "x86_64" else 31, 1, 0),
        "affinity": len(os.sched_getaffinity(0)) == os.cpu_count(),
        "oom_score_adj": open("/proc/self/oom_score_adj").read().strip(),
        "timerslack": LIBC.prctl(30, 0, 0, 0, 0),
        "coredump_filter": open("/proc/self/coredump_filter").read().strip(),
        "comm": open("/proc/self/comm").read().strip(),
        "cmdline": open("/proc/self/cmdline").read().split("\0")[:-1],
        "ids": (os.getresuid(), os.getresgid(), os.getgroups()),
        "capabilities": status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
        "seccomp": status("Seccomp"),
    }


@fact("limits")
def _(environ):
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


@fact("descriptors")
def _(environ):
    code = """
found = []
for number in sorted(os.listdir('/proc/self/fd'), key=int):
    try: found.append(os.readlink('/proc/self/fd/' + number))
    except OSError: pass
print(json.dumps(found))"""
    everything = [re.sub(r":?\[\d+\]$", "", each) for each in in_program(code)[3:]]
    return {
        "0": kind(0),
        "1": kind(1),
        "2": kind(2),
        "beyond": descriptors(),
        # Its own way to its parent is a pipe, and files may be the program's.
        "beyond in a fork": [
            each
            for each in in_child(descriptors)
            if each != "pipe" and not each.startswith(("HERE/", "/dev/"))
        ],
        "beyond in a program": [each for each in everything if not each.startswith("/proc/")],
    }


# Streams.


@fact("streams")
def _(environ):
    found = {}
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        found[name] = {
            "type": type(stream).__name__,
            "is the first": stream is getattr(sys, "__%s__" % name),
            "fileno": attempt(stream.fileno),
            "isatty": attempt(stream.isatty),
            "name": attempt(lambda: stream.name),
            "mode": attempt(lambda: stream.mode),
            "encoding": (attempt(lambda: stream.encoding), attempt(lambda: stream.errors)),
            "line_buffering": attempt(lambda: stream.line_buffering),
            "newlines": described(attempt(lambda: stream.newlines)),
            "buffer": attempt(lambda: type(stream.buffer).__name__),
            "can": (attempt(stream.readable), attempt(stream.writable), attempt(stream.seekable)),
        }
    found["input"] = attempt(lambda: sys.stdin.read())
    return {
        stream + "." + name: value
        for stream, facts in found.items()
        for name, value in (facts.items() if isinstance(facts, dict) else [("read", facts)])
    }


# Place and time.


@fact("locale")
def _(environ):
    return {
        "setlocale": locale.setlocale(locale.LC_ALL, None),
        "preferred": locale.getpreferredencoding(False),
        "file system": (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()),
        "decimal point": locale.localeconv()["decimal_point"],
        "default": sys.getdefaultencoding(),
    }


@fact("time zone")
def _(environ):
    return {
        "names": time.tzname,
        "offset": time.timezone,
        "epoch": time.strftime("%c %Z", time.localtime(0)),
        "cputime": time.process_time() < 30,
    }


# Children.


@fact("children")
def _(environ):
    if requested(environ) != "request=2":
        # What is done to them may end a process that goes on to the next request.
        return {}
    fork = multiprocessing.get_context("fork")

    def terminated():
        process = fork.Process(target=time.sleep, args=(60,))
        process.start()
        process.terminate()
        process.join(10)
        ended = process.exitcode
        process.kill()
        process.join()
        return ended

    def pool():
        os.setpgid(0, 0)
        with fork.Pool(2) as workers:
            return workers.map(abs, [-1, -2])

    def interrupted():
        started = subprocess.Popen(["/bin/sleep", "60"])
        started.send_signal(signal.SIGINT)
        try:
            return started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
            return "ignores SIGINT"

    return {
        "exit codes arrive": os.WEXITSTATUS(
            os.waitpid(os.spawnl(os.P_NOWAIT, "/bin/sh", "sh", "-c", "exit 3"), 0)[1]
        ),
        "others' to wait for": attempt(lambda: os.waitpid(-1, os.WNOHANG)),
        "terminate() ends them": terminated(),
        "multiprocessing.Pool": in_child(pool),
        "SIGINT ends a program": interrupted(),
        "death signal after a fork": in_child(lambda: prctl(2)),
        "random after a fork": in_child(random.random) != random.random(),
        "is a daemon of multiprocessing": multiprocessing.current_process().daemon,
        "name for multiprocessing": multiprocessing.current_process().name,
    }


# What is left for the end, and what two requests have in common.


def leave_things_behind():
    number = len(REQUESTS)
    atexit.register(record, "atexit of a request", number)
    STATE["left"].append(Leaving())
    weakref.finalize(STATE["left"][-1], record, "finalizer of a request", number)
    multiprocessing.util.Finalize(
        None, record, ("multiprocessing's of a request", number), exitpriority=1
    )
    STATE["left"].append(Deleted("deleted object of a request", number))
    TEXT.write("line\n")
    BINARY.write(b"line\n")
    csv.writer(TABLE).writerow(["line"])
    ZIPPED.write(b"line\n")
    of_request = open(kept("of-request"), "a")
    of_request.write("line\n")
    STATE["left"].append(of_request)
    left = gzip.open(kept("of-request.gz"), "ab")
    left.write(b"line\n")
    STATE["left"].append(left)
    shelf = shelve.Shelf(dbm.dumb.open(kept("shelf")), writeback=True)
    shelf[str(time.monotonic_ns())] = number
    STATE["left"].append(shelf)
    STATE["left"].append(tempfile.NamedTemporaryFile(prefix="kept-file-", dir=HERE))
    STATE["left"].append(tempfile.TemporaryDirectory(prefix="kept-of-request-", dir=HERE))
    print("no end of line", end="")


def draws():
    return {
        "random": random.random(),
        "random.Random() of the import": GENERATOR.random(),
        "random.Random() of the request": random.Random().random(),
        "os.urandom": os.urandom(8).hex(),
        "uuid4": str(uuid.uuid4()),
        "secrets": secrets.token_hex(8),
        "hash of a str": hash("wsgate"),
        "names of temporary files": tempfile.mktemp(),
    }


def observe(environ):
    REQUESTS.append(time.monotonic())
    directory_is_there = os.path.isdir(DIRECTORY.name)
    seen = {}
    for name, function in FACTS.items():
        try:
            value = function(environ)
        except Exception as error:
            value = "raises " + described(error)
        seen.update(
            {name + ": " + key: value[key] for key in value}
            if isinstance(value, dict)
            else {name: value}
        )
    seen["import's temporary directory is there"] = directory_is_there
    seen["generator with a seed of the import"] = SEEDED.random()
    if requested(environ) != "request=0":
        leave_things_behind()
    return {
        "seen": seen,
        "draws": draws(),
        "pid": os.getpid(),
        "loaded by": LOADED_BY,
        "requests": len(REQUESTS),
    }


def application(environ, start_response):
    is_early = environ["wsgi.multithread"] and threading.current_thread() is threading.main_thread()
    seen = {"again": True} if is_early else observe(environ)
    body = json.dumps(seen, sort_keys=True, default=described).encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


if __name__ == "__main__":
    if sys.argv[1:] == ["plain"]:
        FACTS = {
            name: function
            for name, function in FACTS.items()
            if not name.startswith(("environ,", "environ", "URLs"))
        }
        sys.argv.pop()
        body = json.dumps(observe({}), sort_keys=True, default=described).encode()
        os.write(1, b"Content-Length: %d\r\n\r\n" % len(body) + body)
    else:
        wsgiref.handlers.CGIHandler().run(application)
