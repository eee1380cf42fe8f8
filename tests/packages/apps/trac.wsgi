#!/usr/local/bin/wsgate
"""Trac, as its documentation sets it up: the environment is named at module level."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ["TRAC_ENV"] = os.path.join(ROOT, "var", "trac")

from trac.web.main import dispatch_request

application = dispatch_request
