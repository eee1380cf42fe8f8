#!/usr/local/bin/wsgate
"""Answers without a Content-Type, as small frameworks do; the query says what."""


def application(environ, start_response):
    if environ["QUERY_STRING"] == "redirect":
        start_response("303 See Other", [("Location", "http://elsewhere.example/")])
        return [b"Over there\n"]
    if environ["QUERY_STRING"] == "nothing":
        start_response("204 No Content", [("Content-Length", "0")])
        return b""
    start_response("200 OK", [])
    return [b"X-Header: none\r\n\r\n<h1>Body</h1>\n"]
