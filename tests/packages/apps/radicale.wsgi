#!/usr/local/bin/wsgate
"""Radicale, whose default application reads the configuration that RADICALE_CONFIG names."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ["RADICALE_CONFIG"] = os.path.join(ROOT, "var", "radicale.conf")

from radicale import application
