"""Runs a program as on Linux 4.18, the kernel of Enterprise Linux 8, without later system calls.

    python3 linux_4_18.py PROGRAM [ARGUMENT...]

A seccomp filter, which all children of the program inherit, makes system calls fail as they fail
there. Without the right to install one this prints `no seccomp` and exits with status 77.
"""

import ctypes
import os
import platform
import struct
import sys

# Number of the first system call that Linux 4.18 has on no architecture: pidfd_send_signal(2).
FIRST_LATER = 424
# x32 system calls have this bit set.
X32 = 0x40000000

MADVISE, FCNTL, MEMFD_CREATE, WAITID = {
    "x86_64": (28, 72, 319, 247),
    "aarch64": (233, 25, 279, 95),
}[platform.machine()]

ENOSYS, EINVAL = 38, 22
# uname(2) gives a release that is older than 3.0 (personality(2)).
UNAME26 = 0x0020000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000

# Instructions of BPF, and offsets in `struct seccomp_data`.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARGUMENTS = 0, 16


def instruction(code, value, then=0, otherwise=0):
    return struct.pack("HBBI", code, then, otherwise, value)


def refuse(number, argument, test, value):
    """EINVAL for the system call `number` if its argument of this position passes the test."""
    return [
        instruction(LOAD, NUMBER),
        instruction(EQUAL, number, 0, 3),
        instruction(LOAD, ARGUMENTS + 8 * argument),
        instruction(test, value, 0, 1),
        instruction(RETURN, ERRNO | EINVAL),
    ]


PROGRAM = [
    instruction(LOAD, NUMBER),
    instruction(AT_LEAST, X32, 2, 0),
    instruction(AT_LEAST, FIRST_LATER, 0, 1),
    instruction(RETURN, ERRNO | ENOSYS),
    # MADV_COLD (5.4) and what follows it, such as MADV_POPULATE_WRITE (5.14).
    *refuse(MADVISE, 2, AT_LEAST, 20),
    # F_SEAL_FUTURE_WRITE (5.1) and later seals; F_ADD_SEALS is the only command with such a number
    # whose argument is a small set of bits.
    instruction(LOAD, NUMBER),
    instruction(EQUAL, FCNTL, 0, 5),
    instruction(LOAD, ARGUMENTS + 8),
    instruction(EQUAL, 1033, 0, 3),
    instruction(LOAD, ARGUMENTS + 16),
    instruction(ANY_BIT, 0x30, 0, 1),
    instruction(RETURN, ERRNO | EINVAL),
    # MFD_NOEXEC_SEAL and MFD_EXEC (6.3).
    *refuse(MEMFD_CREATE, 1, ANY_BIT, 0x18),
    # P_PIDFD (5.4).
    *refuse(WAITID, 0, EQUAL, 3),
    # F_SETSIG, which some sandboxes lack.
    *(refuse(FCNTL, 1, EQUAL, 10) if "WSGATE_TEST_NO_F_SETSIG" in os.environ else []),
    instruction(RETURN, ALLOW),
]


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]


def main():
    program = b"".join(PROGRAM)
    described = Filter(len(PROGRAM), program)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.personality(UNAME26)
    installed = (
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        and libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described)) == 0
    )
    if not installed:
        print("no seccomp")
        sys.exit(77)
    os.execv(sys.argv[1], sys.argv[1:])


main()
