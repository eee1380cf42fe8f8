import sys
posix.close(bootstrap)
del bootstrap
try:
    if sys.version_info < (3, 9):
        raise ImportError("Python %d.%d is too old, need 3.9 or later" % sys.version_info[:2])
    if sys.implementation.name != "cpython":
        raise ImportError("%s is not CPython" % sys.implementation.name)
    if "t" in sys.abiflags:
        raise ImportError("this is a free-threaded build of Python")
    from _frozen_importlib import ModuleSpec, _load
    from _frozen_importlib_external import ExtensionFileLoader
    path = sys.argv[1]
    if len(sys.argv) > 4:
        # A pool keeps using the engine of its start: the file may have been replaced by another
        # build.
        try:
            posix.stat("/proc/self/fd/" + sys.argv[4])
            path = "/proc/self/fd/" + sys.argv[4]
        except OSError:
            # Without /proc, the engine is loaded from its file.
            pass
    spec = ModuleSpec("_wsgate", ExtensionFileLoader("_wsgate", path), origin=path)
    engine = _load(spec)
    if len(sys.argv) > 4:
        posix.close(int(sys.argv[4]))
        engine.__file__ = spec.origin = spec.loader.path = sys.argv[1]
    work = engine.prepare(int(sys.argv[2]))
except BaseException as error:
    reason = ("%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace")[:8000]
    try:
        # A report of the kind EngineFailed (crates/wire/src/message.rs): magic and build as in the
        # launch message, then kind and length.
        posix.lseek(int(sys.argv[2]), 0, 0)
        header = posix.read(int(sys.argv[2]), 40)
        header += bytearray([6, 0, 0, 0, len(reason) & 255, len(reason) >> 8, 0, 0])
        posix.write(int(sys.argv[3]), header + reason)
    except OSError:
        # A worker without a supervisor has no reader of reports.
        code = "W0207" if b": version `GLIBC_" in reason else "W0206"
        where = "wsgate: error[%s]: the engine `%s` does not work in `%s`: "
        where = (where % (code, sys.argv[1], sys.executable)).encode("utf-8", "replace")
        hint = b"wsgate check says more"
        if b"failed to map segment" in reason or b"annot allocate memory" in reason:
            # No module is imported for this: there is too little memory.
            for line in posix.read(posix.open("/proc/self/limits", 0), 4096).split(b"\n"):
                if line.startswith(b"Max address space") and b"unlimited" not in line:
                    bytes_of_limit = int(line.split()[3])
                    hint = b"there is not enough memory (RLIMIT_AS: %d MB of address space for each"
                    hint = hint % (bytes_of_limit >> 20)
                    hint += b" process): raise this limit (`ulimit -v`)"
        posix.write(2, where + reason + b"\nhint: " + hint + b"\n")
    posix._exit(70)
work.run()
