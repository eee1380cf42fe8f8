#!/usr/local/bin/wsgate
"""Ends its process without a word, before there is an application."""

import os

os._exit(0)
