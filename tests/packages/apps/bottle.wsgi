#!/usr/local/bin/wsgate
"""Bottle: a form with a file, a cookie, a file of the server's."""

import os

import bottle

site = bottle.Bottle()
HERE = os.path.dirname(os.path.abspath(__file__))


@site.get("/hello/<name>")
def hello(name):
    bottle.response.set_cookie("seen", name, secret="s3cret", path="/")
    return f"Hello {name}, {site.get_url('/hello/<name>', name='you')}\n"


@site.get("/seen")
def seen():
    return bottle.request.get_cookie("seen", secret="s3cret") or "nobody"


@site.post("/upload")
def upload():
    file = bottle.request.files.file
    return {"name": file.filename, "bytes": len(file.file.read())}


@site.get("/source")
def source():
    return bottle.static_file("bottle.wsgi", root=HERE, mimetype="text/x-python")


application = site
