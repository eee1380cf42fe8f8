#!/usr/local/bin/wsgate
"""Is killed, as by the kernel when memory is short."""

import os
import signal


def application(environ, start_response):
    os.kill(os.getpid(), signal.SIGKILL)
