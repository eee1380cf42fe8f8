#!/usr/local/bin/wsgate
"""Shows what an application finds in `environ`. Remove this page when the site works.

The page shows everything that the browser and the web server send, passwords and cookies too.
`?format=json` or `Accept: application/json` returns JSON.
"""

import html
import json
import os
import sys
from urllib.parse import parse_qs


def application(environ, start_response):
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, int, tuple))}
    seen["sys.version"] = sys.version
    seen["sys.executable"] = sys.executable
    seen["sys.path"] = sys.path
    seen["os.getuid()"] = os.getuid()
    seen["os.getcwd()"] = os.getcwd()

    if wants_json(environ):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(seen, indent=2, sort_keys=True).encode()]

    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [page(seen).encode("utf-8", "backslashreplace")]


def wants_json(environ):
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("format")
    return asked == ["json"] or "application/json" in environ.get("HTTP_ACCEPT", "")


def page(seen):
    # Every value comes from outside, and must not become markup.
    rows = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(repr(value))}</td></tr>"
        for name, value in sorted(seen.items())
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>WSGI environ</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 2em }}
th {{ text-align: left; vertical-align: top; padding-right: 1em; font-weight: normal; color: #555 }}
td {{ font-family: monospace; word-break: break-all }}
</style>
</head>
<body>
<h1>WSGI environ</h1>
<table>
{rows}
</table>
</body>
</html>
"""
