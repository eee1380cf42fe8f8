#!/usr/local/bin/wsgate
"""A small Flask site.

Flask has to be where this file's Python finds it. Make a virtualenv above all that the web server shows: above
cgi-bin, never in it, and above public_html, where cgi-bin is in that. wsgate finds it there by itself:

    python3 -m venv .venv && .venv/bin/pip install flask
"""

import hmac
import json
import time

from flask import Flask, Response, redirect, render_template_string, request, url_for

app = Flask(__name__)

INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Flask</title></head>
<body>
<h1>Flask in cgi-bin</h1>
<p>You were here {{ visits }} times.</p>
<ul>
{% for link in links %}<li><a href="{{ link }}">{{ link }}</a></li>
{% endfor %}</ul>
<form method="post" action="{{ url_for('greet') }}">
<input name="name" placeholder="Your name"> <button>Greet</button>
</form>
</body>
</html>
"""


@app.get("/")
def index():
    # Links come from `url_for` alone: it knows the path that the script stands under.
    links = [url_for(name) for name in ("moved", "stream", "private", "error")]
    links.append(url_for("where", rest="café/au lait"))
    visits = request.cookies.get("visits", 0, type=int) + 1
    response = app.make_response(render_template_string(INDEX, links=links, visits=visits))
    # A script's path is the cookie's too, so that two scripts in one cgi-bin do not read each other's.
    response.set_cookie("visits", str(visits), path=request.script_root or "/", httponly=True, samesite="Lax")
    return response


@app.post("/greet")
def greet():
    return render_template_string("<!DOCTYPE html><p>Hello, {{ name }}!</p>", name=request.form["name"])


@app.get("/moved")
def moved():
    return redirect(url_for("index"))


@app.get("/where/<path:rest>")
def where(rest):
    seen = {"script_root": request.script_root, "path": request.path, "rest": rest, "url": request.url}
    return Response(json.dumps(seen, ensure_ascii=False) + "\n", mimetype="application/json")


@app.get("/stream")
def stream():
    # Every block is on its way to the browser before the next is made.
    def clock():
        for count in range(5):
            yield f"{count}: {time.strftime('%H:%M:%S')}\n"
            time.sleep(1)

    return Response(clock(), mimetype="text/plain")


@app.get("/private")
def private():
    given = request.authorization
    if given is None or given.username != "ada" or not hmac.compare_digest((given.password or "").encode(), b"lovelace"):
        return Response("Who are you?\n", 401, {"WWW-Authenticate": 'Basic realm="flask.wsgi"'}, mimetype="text/plain")
    return Response(f"Good day, {given.username}\n", mimetype="text/plain")


@app.get("/error")
def error():
    raise RuntimeError("this page fails: its traceback stands in the error log, and nothing of it in the browser")
