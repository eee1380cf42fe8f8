"""Applications that attack the process they run in. Each function is one, PATH_INFO names it.

The comment above a function says what it may cost beside its own response:
`ends the pool`: the supervisor or the process that started the worker ends, too;
`cuts the pool off`: nobody can connect until the pool is started again;
`garbles its own response`: that goes to a descriptor which the application writes to;
`leaves`: the client leaves after the first bytes.
"""

import builtins
import ctypes
import faulthandler
import gc
import locale
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import zlib

LIBC = ctypes.CDLL(None, use_errno=True)
TEXT = [('Content-Type', 'text/plain')]


def application(environ, start_response):
    name = environ['PATH_INFO']
    if name.startswith('/good'):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [name.encode('latin-1'), b'|', body]
    return ATTACKS[name](environ, start_response)


def done(start_response, body=b'done'):
    start_response('200 OK', TEXT)
    return [body]


def descriptors():
    return [int(name) for name in os.listdir('/proc/self/fd')]


def sockets():
    return [
        fd
        for fd in descriptors()
        if os.path.exists('/proc/self/fd/%d' % fd) and stat.S_ISSOCK(os.fstat(fd).st_mode)
    ]


def wait_for_ever():
    while True:
        time.sleep(1000)


# Descriptors


def closes_all_descriptors(environ, start_response):
    os.closerange(3, 4096)
    return done(start_response)


def closes_the_standard_streams(environ, start_response):
    os.closerange(0, 3)
    return done(start_response)


def closes_sockets(environ, start_response):
    for fd in sockets():
        os.close(fd)
    return done(start_response)


def puts_dev_null_over_all_descriptors(environ, start_response):
    null = os.open('/dev/null', os.O_RDWR)
    for fd in range(3, null):
        os.dup2(null, fd)
    return done(start_response)


def puts_a_pipe_over_low_descriptors(environ, start_response):
    read, write = os.pipe()
    for fd in range(3, 24):
        os.dup2(read, fd)
    return done(start_response)


# garbles its own response
def writes_to_every_descriptor(environ, start_response):
    for fd in descriptors():
        try:
            if fd > 2:
                os.set_blocking(fd, False)
                os.write(fd, b'\1garbage\xff' * 3)
        except OSError:
            pass
    return done(start_response)


# cuts the pool off
def shuts_every_socket_down(environ, start_response):
    for fd in sockets():
        try:
            socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    return done(start_response)


def makes_every_descriptor_inheritable_and_not_blocking(environ, start_response):
    for fd in descriptors():
        try:
            os.set_inheritable(fd, True)
            os.set_blocking(fd, False)
        except OSError:
            pass
    return done(start_response)


def leaves_descriptors_open(environ, start_response):
    kept.extend(os.open('/dev/null', os.O_RDONLY) for _ in range(500))
    return done(start_response)


kept = []


# Signals


def ignores_all_signals(environ, start_response):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    return done(start_response)


def gives_all_signals_their_default(environ, start_response):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    return done(start_response)


def blocks_all_signals(environ, start_response):
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    return done(start_response)


def raises_in_a_signal_handler_all_the_time(environ, start_response):
    def handler(number, frame):
        raise RuntimeError('in a handler')

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    return done(start_response)


def leaves_an_alarm_behind(environ, start_response):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return done(start_response)


def stops_itself(environ, start_response):
    os.kill(os.getpid(), signal.SIGSTOP)
    # With other threads it may take a moment.
    wait_for_ever()


# ends the pool
def sends_sigterm_to_its_process_group(environ, start_response):
    os.kill(0, signal.SIGTERM)
    return done(start_response)


# ends the pool
def kills_its_process_group(environ, start_response):
    os.kill(0, signal.SIGKILL)
    return done(start_response)


# ends the pool
def sends_sigterm_to_its_parent(environ, start_response):
    os.kill(os.getppid(), signal.SIGTERM)
    return done(start_response)


# ends the pool
def kills_its_parent(environ, start_response):
    os.kill(os.getppid(), signal.SIGKILL)
    return done(start_response)


def sends_sigusr2_to_itself(environ, start_response):
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
    return done(start_response)


# Limits and the process


def limits_its_descriptors(environ, start_response):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return done(start_response)


def limits_its_memory(environ, start_response):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))
    return done(start_response, b'x' * 100)


def limits_the_size_of_files(environ, start_response):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    print('a line for the log')
    return done(start_response)


def uses_up_its_time_on_the_processor(environ, start_response):
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    while True:
        pass


def limits_its_stack(environ, start_response):
    resource.setrlimit(resource.RLIMIT_STACK, (64 * 1024, 64 * 1024))
    return done(start_response)


def limits_its_processes(environ, start_response):
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return done(start_response)


def stands_in_a_deleted_directory(environ, start_response):
    directory = tempfile.mkdtemp()
    os.chdir(directory)
    os.rmdir(directory)
    return done(start_response)


def forbids_all_permissions(environ, start_response):
    os.umask(0o777)
    return done(start_response)


def changes_its_root(environ, start_response):
    if os.geteuid() == 0:
        directory = tempfile.mkdtemp()
        os.chroot(directory)
        os.chdir('/')
    return done(start_response)


def leaves_the_namespaces(environ, start_response):
    # CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC
    LIBC.unshare(0x00020000 | 0x40000000 | 0x08000000)
    return done(start_response)


def becomes_nobody(environ, start_response):
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    return done(start_response)


def becomes_nice(environ, start_response):
    os.nice(19)
    if hasattr(os, 'sched_setscheduler'):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    return done(start_response)


def wants_no_death_signal_and_no_name(environ, start_response):
    LIBC.prctl(1, 0)
    LIBC.prctl(4, 0)
    LIBC.prctl(15, b'(x) R 1 1')
    return done(start_response)


def enters_strict_seccomp(environ, start_response):
    LIBC.prctl(22, 1)
    return done(start_response)


def lets_itself_be_traced(environ, start_response):
    LIBC.ptrace(0, 0, 0, 0)
    return done(start_response)


def traces_its_parent(environ, start_response):
    # PTRACE_ATTACH stops it as long as this process runs.
    LIBC.ptrace(16, os.getppid(), 0, 0)
    return done(start_response)


def becomes_another_program(environ, start_response):
    os.execv('/bin/true', ['true'])


def becomes_another_program_that_stays(environ, start_response):
    os.execv('/bin/sleep', ['sleep', '1000'])


def removes_the_runtime_directory(environ, start_response):
    shutil.rmtree(os.environ.get('RUN_OF_ATTACK', '/nowhere'), ignore_errors=True)
    return done(start_response)


# cuts the pool off
def removes_the_socket(environ, start_response):
    try:
        os.unlink(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'app.sock'))
    except OSError:
        pass
    return done(start_response)


# Python


def forgets_all_modules(environ, start_response):
    sys.modules.clear()
    return done(start_response)


def replaces_the_builtins(environ, start_response):
    body = done(start_response)
    for name in dir(builtins):
        if not name.startswith('__'):
            setattr(builtins, name, None)
    return body


def replaces_import(environ, start_response):
    def refuses(*words, **more):
        raise ImportError('no more')

    builtins.__import__ = refuses
    return done(start_response)


def traces_and_raises(environ, start_response):
    body = done(start_response)

    def trace(frame, event, argument):
        raise RuntimeError('traced')

    sys.settrace(trace)
    threading.settrace(trace)
    return body


def profiles_and_raises(environ, start_response):
    body = done(start_response)

    def profile(frame, event, argument):
        raise RuntimeError('profiled')

    sys.setprofile(profile)
    return body


def replaces_the_exception_hooks(environ, start_response):
    sys.excepthook = sys.unraisablehook = threading.excepthook = None
    sys.exc_info = sys.exit = None
    raise RuntimeError('unseen')


def replaces_the_standard_library(environ, start_response):
    def refuses(*words, **more):
        raise RuntimeError('replaced')

    for module, names in (
        (time, ['sleep', 'time', 'monotonic']),
        (os, ['fork', '_exit', 'getpid', 'read', 'write', 'close']),
        (signal, ['signal', 'getsignal', 'pthread_sigmask']),
        (threading, ['Thread', 'main_thread', 'current_thread', '_shutdown']),
        (gc, ['collect', 'freeze']),
    ):
        for name in names:
            setattr(module, name, refuses)
    return done(start_response)


def turns_collection_off_and_leaks(environ, start_response):
    gc.disable()
    for _ in range(20000):
        cycle = [b'x' * 1000]
        cycle.append(cycle)
    return done(start_response)


def recurses_without_end(environ, start_response):
    return recurses_without_end(environ, start_response)


def overflows_the_stack(environ, start_response):
    sys.setrecursionlimit(10**9)
    nested = None
    for _ in range(3_000_000):
        nested = (nested,)
    return [repr(nested).encode()]


def replaces_the_streams(environ, start_response):
    sys.stdin = sys.stdout = sys.stderr = None
    return done(start_response)


def closes_the_streams(environ, start_response):
    for stream in (
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.__stderr__,
        environ['wsgi.errors'],
        environ['wsgi.input'],
    ):
        try:
            stream.close()
        except Exception:
            pass
    return done(start_response)


def clears_the_environment(environ, start_response):
    os.environ.clear()
    environ.clear()
    LIBC.clearenv()
    return done(start_response)


def fills_the_environment(environ, start_response):
    for number in range(2000):
        os.environ['FILLED_%d' % number] = 'x' * 1000
    return done(start_response)


def changes_the_locale(environ, start_response):
    for name in ('C', 'POSIX', 'C.UTF-8'):
        locale.setlocale(locale.LC_ALL, name)
    os.environ['TZ'] = 'nonsense/\xff'
    time.tzset()
    return done(start_response)


def reads_standard_input(environ, start_response):
    sys.stdin.read()
    while os.read(0, 4096):
        pass
    return done(start_response)


def writes_to_standard_output(environ, start_response):
    print('Status: 200 OK\r\nContent-Type: text/html\r\n\r\nprinted')
    os.write(1, b'Status: 200 OK\r\n\r\nraw')
    return done(start_response)


def floods_the_log(environ, start_response):
    for _ in range(200):
        environ['wsgi.errors'].write('flood ' * 2000 + '\n')
    return done(start_response)


def misuses_faulthandler(environ, start_response):
    faulthandler.enable(open(os.devnull, 'w'))
    faulthandler.register(signal.SIGUSR1, open(os.devnull, 'w'), chain=True)
    faulthandler.disable()
    return done(start_response)


def ends_by_faulthandler_later(environ, start_response):
    faulthandler.dump_traceback_later(0.05, exit=True)
    return done(start_response)


def inflates_a_bomb(environ, start_response):
    small = zlib.compress(b'\0' * (32 << 20))
    return done(start_response, zlib.decompress(small)[:100])


def imports_from_a_broken_archive(environ, start_response):
    with tempfile.NamedTemporaryFile(suffix='.zip') as archive:
        archive.write(b'PK\3\4 no archive')
        archive.flush()
        sys.path.insert(0, archive.name)
        try:
            import there_is_no_such_module  # noqa: F401
        finally:
            sys.path.pop(0)


# Crashes


def crashes(environ, start_response):
    ctypes.string_at(0)


def crashes_after_the_first_block(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    ctypes.string_at(0)


def corrupts_its_memory(environ, start_response):
    LIBC.free(ctypes.c_void_p(0x10))
    return done(start_response)


def aborts(environ, start_response):
    os.abort()


def exits_at_once(environ, start_response):
    os._exit(0)


def exits_between_blocks(environ, start_response):
    start_response('200 OK', TEXT + [('Content-Length', '100')])
    yield b'first'
    os._exit(0)


def exits_in_close(environ, start_response):
    class Blocks(list):
        def close(self):
            os._exit(0)

    return Blocks(done(start_response))


def exits_in_a_thread(environ, start_response):
    threading.Timer(0.02, os._exit, [0]).start()
    return done(start_response)


def calls_sys_exit(environ, start_response):
    sys.exit('exit')


def calls_sys_exit_between_blocks(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    sys.exit()


def calls_sys_exit_in_a_thread(environ, start_response):
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    return done(start_response)


# Processes and threads


def forks_a_child_that_returns(environ, start_response):
    os.fork()
    return done(start_response)


def forks_a_child_that_raises(environ, start_response):
    if os.fork() == 0:
        raise RuntimeError('in the child')
    return done(start_response)


def forks_a_child_that_stays_a_while(environ, start_response):
    if os.fork() == 0:
        time.sleep(0.3)
        os._exit(0)
    return done(start_response)


def starts_a_daemon(environ, start_response):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.3)
        os._exit(0)
    os.wait()
    return done(start_response)


def forks_without_waiting(environ, start_response):
    for _ in range(20):
        if os.fork() == 0:
            os._exit(1)
    return done(start_response)


def leads_a_session(environ, start_response):
    try:
        os.setsid()
    except PermissionError:
        pass
    return done(start_response)


def starts_an_endless_daemon_thread(environ, start_response):
    threading.Thread(target=wait_for_ever, daemon=True).start()
    return done(start_response)


def starts_an_endless_thread(environ, start_response):
    threading.Thread(target=wait_for_ever).start()
    return done(start_response)


def starts_a_thread_that_never_rests(environ, start_response):
    def spin():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    for _ in range(4):
        threading.Thread(target=spin).start()
    return done(start_response)


def starts_many_threads(environ, start_response):
    for _ in range(200):
        threading.Thread(target=time.sleep, args=[0.1]).start()
    return done(start_response)


# Waiting


def waits(environ, start_response):
    wait_for_ever()


def waits_and_catches_everything(environ, start_response):
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


def waits_in_c(environ, start_response):
    ctypes.PyDLL(None).sleep(1000)


def waits_with_all_signals_blocked(environ, start_response):
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    LIBC.pause()


def waits_between_blocks(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    wait_for_ever()


def waits_in_close(environ, start_response):
    class Blocks(list):
        def close(self):
            wait_for_ever()

    return Blocks(done(start_response))


def waits_at_its_exit(environ, start_response):
    import atexit

    atexit.register(wait_for_ever)
    return done(start_response)


def waits_in_a_finaliser(environ, start_response):
    class Object:
        def __del__(self):
            wait_for_ever()

    kept.append(Object())
    return done(start_response)


def raises_at_its_exit(environ, start_response):
    import atexit

    atexit.register(sys.exit, 'exit')
    atexit.register(os.abort)
    return done(start_response)


# leaves
def yields_without_end(environ, start_response):
    start_response('200 OK', TEXT)
    while True:
        yield b'x' * 10000


# leaves
def yields_nothing_without_end(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    while True:
        yield b''


# Responses


def raises(environ, start_response):
    raise RuntimeError('raised')


def raises_a_keyboard_interrupt(environ, start_response):
    raise KeyboardInterrupt


def raises_an_error_without_a_text(environ, start_response):
    class Wrong(Exception):
        def __str__(self):
            raise RuntimeError('no text')

        __repr__ = __str__

    raise Wrong


def raises_in_iter(environ, start_response):
    class Blocks:
        def __iter__(self):
            raise RuntimeError('iter')

    start_response('200 OK', TEXT)
    return Blocks()


def raises_in_len(environ, start_response):
    class Blocks(list):
        def __len__(self):
            raise RuntimeError('len')

        __bool__ = __len__

    return Blocks(done(start_response))


def raises_between_blocks(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    raise RuntimeError('between')


def raises_in_close(environ, start_response):
    class Blocks(list):
        def close(self):
            raise RuntimeError('close')

    return Blocks(done(start_response))


def lies_about_its_length(environ, start_response):
    class Blocks(list):
        def __len__(self):
            return 1

    start_response('200 OK', TEXT)
    return Blocks([b'one', b'two', b'three'])


def returns_a_number(environ, start_response):
    start_response('200 OK', TEXT)
    return 42


def returns_text(environ, start_response):
    start_response('200 OK', TEXT)
    return 'text'


def returns_an_application(environ, start_response):
    start_response('200 OK', TEXT)
    return application


def yields_text(environ, start_response):
    start_response('200 OK', TEXT)
    yield 'text'


def yields_text_after_bytes(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'bytes'
    yield None


def never_starts_a_response(environ, start_response):
    return [b'body']


def starts_the_response_twice(environ, start_response):
    start_response('200 OK', TEXT)
    start_response('404 Not Found', TEXT)
    return [b'body']


def starts_another_response_too_late(environ, start_response):
    start_response('200 OK', TEXT)
    yield b'first'
    try:
        raise RuntimeError('late')
    except RuntimeError:
        start_response('500 Error', TEXT, sys.exc_info())
    yield b'second'


def sends_huge_headers(environ, start_response):
    start_response('200 OK', TEXT + [('X-%d' % number, 'x' * 10000) for number in range(1000)])
    return [b'body']


def injects_headers(environ, start_response):
    start_response('200 OK', TEXT + [('X-One', 'one\r\nX-Two: two\r\n\r\nbody')])
    return [b'body']


def sends_less_than_it_says(environ, start_response):
    start_response('200 OK', TEXT + [('Content-Length', '1000')])
    return [b'body']


def sends_more_than_it_says(environ, start_response):
    start_response('200 OK', TEXT + [('Content-Length', '2')])
    return [b'body']


def writes_after_the_end(environ, start_response):
    write = start_response('200 OK', TEXT)

    def late():
        time.sleep(0.05)
        try:
            write(b'late, of another request')
        except Exception:
            pass

    threading.Thread(target=late).start()
    return [b'body']


ATTACKS = {'/' + name: value for name, value in list(globals().items()) if callable(value)}
