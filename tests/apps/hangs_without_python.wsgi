#!/usr/local/bin/wsgate --timeout 1
"""Never comes to an end, in C code that no signal interrupts and that lets no Python run."""

import ctypes


def application(environ, start_response):
    # A function of a PyDLL keeps the interpreter locked. A mutex of zeroes is a new one.
    libc, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)
