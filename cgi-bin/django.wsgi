#!/usr/local/bin/wsgate
"""A small Django site: a page of notes, and the admin to write them in. Its project is `djangosite` beside this file.

Once, from a directory above all that the web server shows (above public_html, where cgi-bin is in that), and as the
user that it runs scripts as:

    python3 -m venv .venv && .venv/bin/pip install django
    export PYTHONPATH=/path/to/cgi-bin DJANGO_SETTINGS_MODULE=djangosite.settings
    .venv/bin/python -m django migrate
    .venv/bin/python -m django createsuperuser

The database and the site's secret key are kept in `.local/share/djangosite` of that user's home directory. A user who
cannot write there, as www-data cannot, has another one, which the first line of this file names, too:

    install -d -o www-data -m 700 /var/lib/djangosite && export DJANGO_DATA=/var/lib/djangosite
    #!/usr/local/bin/wsgate --env DJANGO_DATA=/var/lib/djangosite

The site does not start with a directory that clients can reach.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djangosite.settings")

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
