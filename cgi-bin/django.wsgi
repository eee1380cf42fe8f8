#!/usr/local/bin/wsgate
"""A small Django site: a page of notes, and the admin to write them. Its project is `djangosite`
beside this file.

Set it up once, as the user that the web server runs scripts as, in a directory above everything
that the web server shows (above public_html if that contains cgi-bin):

    python3 -m venv .venv && .venv/bin/pip install django
    export PYTHONPATH=/path/to/cgi-bin DJANGO_SETTINGS_MODULE=djangosite.settings
    .venv/bin/python -m django migrate
    .venv/bin/python -m django createsuperuser

The database and the site's secret key are in `.local/share/djangosite` of that user's home
directory. For a user who cannot write there, such as www-data, name another directory, also on the
first line of this file:

    install -d -o www-data -m 700 /var/lib/djangosite && export DJANGO_DATA=/var/lib/djangosite
    #!/usr/local/bin/wsgate --env DJANGO_DATA=/var/lib/djangosite

The site does not start if clients can reach that directory.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangosite.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
