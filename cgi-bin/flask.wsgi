#!/usr/local/bin/wsgate
"""A small Flask site.

Install Flask in a virtualenv above everything that the web server shows: above cgi-bin, never in
it, and above public_html if that contains cgi-bin. wsgate finds the virtualenv by itself:

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
    # `url_for` knows the URL path of the script.
    links = [url_for(name) for name in ("moved", "stream", "private", "error")]
    links.append(url_for("where", rest="café/au lait"))
    visits = request.cookies.get("visits", 0, type=int) + 1
    response = app.make_response(render_template_string(INDEX, links=links, visits=visits))
    # The script's path, so that two scripts in one cgi-bin do not read each other's cookies.
    path = request.script_root or "/"
    response.set_cookie("visits", str(visits), path=path, httponly=True, samesite="Lax")
    return response


@app.post("/greet")
def greet():
    page = "<!DOCTYPE html><p>Hello, {{ name }}!</p>"
    return render_template_string(page, name=request.form["name"])


@app.get("/moved")
def moved():
    return redirect(url_for("index"))


@app.get("/where/<path:rest>")
def where(rest):
    seen = {
        "script_root": request.script_root,
        "path": request.path,
        "rest": rest,
        "url": request.url,
    }
    return Response(json.dumps(seen, ensure_ascii=False) + "\n", mimetype="application/json")


@app.get("/stream")
def stream():
    # wsgate sends each block before it asks for the next one.
    def clock():
        for count in range(5):
            yield f"{count}: {time.strftime('%H:%M:%S')}\n"
            time.sleep(1)

    return Response(clock(), mimetype="text/plain")


@app.get("/private")
def private():
    login = request.authorization
    if login is None or login.username != "ada" or not is_password(login.password):
        headers = {"WWW-Authenticate": 'Basic realm="flask.wsgi"'}
        return Response("Who are you?\n", 401, headers, mimetype="text/plain")
    return Response(f"Good day, {login.username}\n", mimetype="text/plain")


def is_password(password):
    return hmac.compare_digest((password or "").encode(), b"lovelace")


@app.get("/error")
def error():
    raise RuntimeError("this page fails: its traceback is in the error log, not in the browser")
