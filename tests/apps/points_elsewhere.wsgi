#!/usr/local/bin/wsgate
"""Answers with the status that the query asks for, 302 without one, and an address."""


def application(environ, start_response):
    headers = [("Content-Type", "text/plain"), ("Location", "http://elsewhere.example/")]
    start_response((environ["QUERY_STRING"] or "302") + " As Asked", headers)
    return [b"Over there\n"]
