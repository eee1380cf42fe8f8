#!/usr/local/bin/wsgate
"""Zope over the instance in `var/zope`. The first try of a request with `conflict` fails."""

import os
import sys

from Zope2.Startup.run import make_wsgi_app
from ZODB.POSException import ConflictError
from ZPublisher.interfaces import IPubBeforeAbort, IPubBeforeCommit
from zope.component import adapter, provideHandler

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
application = make_wsgi_app({}, os.path.join(ROOT, "var", "zope", "zope.conf"))


@adapter(IPubBeforeCommit)
def fail_once(event):
    if event.request.form.get("conflict") and not event.request.retry_count:
        raise ConflictError("asked for")


@adapter(IPubBeforeAbort)
def count_retries(event):
    if event.retry:
        print("retried", event.request.form["id"], file=sys.stderr)


provideHandler(fail_once)
provideHandler(count_retries)
