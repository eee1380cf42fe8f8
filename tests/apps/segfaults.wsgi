#!/usr/local/bin/wsgate
"""Reads where no memory is."""

import ctypes


def application(environ, start_response):
    ctypes.string_at(0)
