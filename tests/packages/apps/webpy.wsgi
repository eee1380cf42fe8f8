#!/usr/local/bin/wsgate
"""web.py: its hello sends no Content-Type, a form is read, a redirect is relative to the script."""

import web

urls = ("/", "Index", "/form", "Form", "/moved", "Moved")


class Index:
    def GET(self):
        return "Hello, world!"


class Form:
    def POST(self):
        data = web.input(name="nobody")
        web.header("Content-Type", "text/plain; charset=utf-8")
        return f"Hello, {data.name}!"


class Moved:
    def GET(self):
        raise web.seeother("/form")


application = web.application(urls, globals()).wsgifunc()
