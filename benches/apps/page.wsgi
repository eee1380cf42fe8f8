"""A page of Flask."""

from flask import Flask, render_template_string

application = Flask("page")


@application.get("/")
def page():
    return render_template_string("Hello {{ name }}", name="World")
