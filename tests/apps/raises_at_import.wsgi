#!/usr/local/bin/wsgate
"""Raises when it is loaded."""

raise RuntimeError("a secret of the application")
