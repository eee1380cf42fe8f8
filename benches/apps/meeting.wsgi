"""A Flask application. At /meet a request waits until the bench has one from every worker."""

import socket

from flask import Flask, render_template_string

application = Flask("meeting")

PAGE = "Hello {{ name }}"


@application.get("/hello")
def hello():
    return render_template_string(PAGE, name="World")


@application.get("/meet")
def meet():
    with socket.socket(socket.AF_UNIX) as meeting:
        meeting.connect(MEETING)
        meeting.recv(1)
    return hello()
