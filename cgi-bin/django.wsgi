#!/usr/local/bin/wsgate
"""A small Django site: a page of notes, and the admin to write them in. Its project is `djangosite` beside this file.

Once, from the directory above cgi-bin and as the user that the web server runs scripts as:

    python3 -m venv .venv && .venv/bin/pip install django
    export PYTHONPATH=cgi-bin DJANGO_SETTINGS_MODULE=djangosite.settings
    .venv/bin/python -m django migrate
    .venv/bin/python -m django createsuperuser

The database and the site's secret key are kept in `var`, a directory beside cgi-bin that visitors cannot reach;
DJANGO_DB and DJANGO_SECRET_KEY name others.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangosite.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
