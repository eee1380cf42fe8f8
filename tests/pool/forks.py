# Reports what a process finds that this application forks, and what its parent sees of it. As a
# program of its own, it reports the same without wsgate.
import concurrent.futures
import ctypes
import gc
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time


def descriptors():
    found = []
    for number in map(int, os.listdir('/proc/self/fd')):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return sorted(found)


def masks(text):
    # Of the signals that the C library keeps for itself it uses one when there are threads.
    names = ['SigBlk', 'SigIgn', 'SigCgt']
    lines = dict(line.split(':') for line in text.splitlines() if line[:6] in names)
    return ['%s %x' % (name, int(lines[name], 16) & 0x7FFFFFFF) for name in names]


def handlers():
    return [
        [number, repr(signal.getsignal(number))]
        for number in range(1, signal.NSIG)
        if signal.getsignal(number) != signal.SIG_DFL
    ]


def of_kernel():
    with open('/proc/self/status') as file:
        return masks(file.read())


def of_this_process():
    return of_kernel() + [
        handlers(),
        descriptors(),
        signal.set_wakeup_fd(-1),
        signal.getitimer(signal.ITIMER_REAL),
    ]


def in_child(fork, tell):
    with tempfile.TemporaryFile('w+') as file:
        child = fork()
        if not child:
            file.write(json.dumps(tell()))
            file.flush()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        file.seek(0)
        return [status, file.fileno(), file.read()]


def fork_in_c():
    return ctypes.PyDLL(None).fork()


def state():
    reported = []
    status, file, text = in_child(os.fork, of_this_process)
    child = json.loads(text)
    child[4].remove(file)
    reported.append(['child', status] + child)
    status, file, text = in_child(fork_in_c, lambda: [descriptors(), of_kernel()])
    numbers, lines = json.loads(text)
    numbers.remove(file)
    reported.append(['child of C', status, numbers, lines])
    # This one leaves signals as it found them at its start.
    look = ['cat', '/proc/self/status']
    for options in [
        {},
        {'preexec_fn': lambda: None},
        {'restore_signals': False},
        {'close_fds': False},
    ]:
        reported.append(
            [list(options)]
            + masks(subprocess.run(look, stdout=subprocess.PIPE, **options).stdout.decode())
        )
    with os.popen('cat /proc/self/status') as pipe:
        reported.append(masks(pipe.read()))
    return json.dumps(reported)


def work():
    assert multiprocessing.parent_process() is None
    for _ in range(10):
        with multiprocessing.get_context('fork').Pool(2) as pool:
            assert pool.map(math.factorial, range(5)) == [1, 1, 2, 6, 24]
    for method in ['fork', 'spawn', 'forkserver']:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, context) as executor:
            assert list(executor.map(math.factorial, range(5))) == [1, 1, 2, 6, 24]
    with multiprocessing.get_context('fork').Manager() as manager:
        shared = manager.list([1])
        shared.append(2)
        assert list(shared) == [1, 2]
    return 'worked'


def signals():
    process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,))
    process.start()
    process.terminate()
    process.join()
    ends = [process.exitcode]
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]:
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(tell, b'x')
                time.sleep(1000)
            except KeyboardInterrupt:
                os._exit(99)
        os.read(ready, 1)
        os.close(ready)
        os.close(tell)
        os.kill(child, number)
        ends.append(os.waitpid(child, 0)[1])
    child = os.fork()
    if not child:
        os._exit(7)
    while os.wait()[0] != child:
        pass
    return json.dumps(ends)


def exits():
    ends = []
    for code in [None, 0, 3, 'a text']:
        child = os.fork()
        if not child:
            sys.exit(code)
        ends.append(os.waitpid(child, 0)[1])
    return json.dumps(ends)


def reuse(environ, start_response):
    # The descriptor of the parent is closed, and its number belongs to another file.
    with tempfile.TemporaryDirectory() as directory:
        child = os.fork()
        if not child:
            try:
                ends = [
                    os.open(os.path.join(directory, str(n)), os.O_RDWR | os.O_CREAT)
                    for n in range(40)
                ]
                reported = []
                for attempt in [
                    environ['wsgi.input'].read,
                    lambda: start_response('200 OK', [('Content-Type', 'text/plain')])(
                        b'x' * 100000
                    ),
                ]:
                    try:
                        attempt()
                        reported.append('done')
                    except OSError:
                        reported.append('refused')
                environ.clear()
                gc.collect()
                sizes = [os.fstat(end).st_size for end in ends]
                print('a line for the log')
                os._exit(0 if reported == ['refused', 'refused'] and not any(sizes) else 1)
            finally:
                os._exit(2)
        return json.dumps(os.waitpid(child, 0)[1])


def daemon():
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        gate = open(os.environ['GATE'])
        print(
            'the daemon has',
            len(
                [
                    n
                    for n in descriptors()
                    if n > 2
                    and n != gate.fileno()
                    and not os.readlink('/proc/self/fd/%d' % n).startswith(('/', 'pipe:'))
                ]
            ),
            'sockets',
        )
        gate.readline()
        os._exit(0)
    os.wait()
    return 'started'


def check():
    child = os.fork()
    if not child:
        kinds = [os.readlink('/proc/self/fd/%d' % n) for n in descriptors()]
        os._exit(any(kind.startswith(('socket:', 'anon_inode:', '/memfd:')) for kind in kinds))
    return str(os.waitpid(child, 0)[1])


def application(environ, start_response):
    path = environ.get('PATH_INFO', '')
    if path == '/reuse':
        text = reuse(environ, start_response)
    else:
        text = {
            '/state': state,
            '/work': work,
            '/signals': signals,
            '/exits': exits,
            '/daemon': daemon,
            '/check': check,
            '/': lambda: '',
        }[path]()
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
    return [text.encode()]


if __name__ == '__main__':
    print(globals()[sys.argv[1]](), end='')
