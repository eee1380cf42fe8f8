"""Makes fork(2) fail as on a machine without memory: ENOMEM for each new process, not for threads.

    python3 no_memory_for_fork.py PROGRAM [ARGUMENT...]

An application gets `install` from here. The seccomp filter, which all children inherit, stays.
"""

import ctypes
import os
import platform
import struct
import sys

CLONE, FORK, VFORK = {"x86_64": (56, 57, 58), "aarch64": (220, None, None)}[platform.machine()]
# Its flags are in memory, which a filter cannot read: the C library uses clone(2) instead.
CLONE3 = 435
CLONE_THREAD = 0x00010000

ENOMEM, ENOSYS = 12, 38
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

# Instructions of BPF, and offsets in `struct seccomp_data`.
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, ARGUMENTS = 0, 16


def instruction(code, value, then=0, otherwise=0):
    return struct.pack("HBBI", code, then, otherwise, value)


def refuse(number, error):
    return [instruction(EQUAL, number, 0, 1), instruction(RETURN, ERRNO | error)]


PROGRAM = [
    instruction(LOAD, NUMBER),
    *refuse(CLONE3, ENOSYS),
    *(part for number in (FORK, VFORK) if number for part in refuse(number, ENOMEM)),
    instruction(EQUAL, CLONE, 0, 3),
    instruction(LOAD, ARGUMENTS),
    instruction(ANY_BIT, CLONE_THREAD, 1, 0),
    instruction(RETURN, ERRNO | ENOMEM),
    instruction(RETURN, ALLOW),
]


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]


def install():
    described = Filter(len(PROGRAM), b"".join(PROGRAM))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described)),
    ):
        if libc.prctl(*arguments) != 0:
            sys.exit("the kernel refuses a seccomp filter: " + os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    install()
    os.execv(sys.argv[1], sys.argv[1:])
