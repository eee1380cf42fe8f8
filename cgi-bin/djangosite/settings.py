"""Settings of the sample site."""

import os
import secrets
import tempfile
from pathlib import Path

# Directory of the database and the secret key, in the home directory: a web server may show the
# directories beside and above this file (cPanel has cgi-bin in public_html).
DATA = Path(os.environ.get("DJANGO_DATA") or Path.home() / ".local/share/djangosite").resolve()

# Directories that the web server shows, by its CGI variables.
for shown in filter(None, map(os.environ.get, ("DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT"))):
    if DATA.is_relative_to(Path(shown).resolve()):
        raise RuntimeError(
            f"clients could fetch the database: {DATA} is in {shown}; "
            "set DJANGO_DATA to a directory elsewhere"
        )

DATA.mkdir(mode=0o700, parents=True, exist_ok=True)


def kept_secret(path):
    """Returns the key, and creates it once. Processes of several requests use the same key."""
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as fresh:
            fresh.write(secrets.token_urlsafe(50))
            fresh.flush()
            try:
                # The file appears with its whole contents, and only the first of two processes
                # creates it.
                os.link(fresh.name, path)
            except FileExistsError:
                pass
    return path.read_text()


SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or kept_secret(DATA / "django.secret")
DEBUG = False
# The sample accepts any host. On a real site, list its names: otherwise links in its mails can be
# forged.
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "djangosite.notes",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "djangosite.urls"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "django.sqlite3",
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Without a leading slash, so that Django prepends the script's own path.
STATIC_URL = "static/"
USE_TZ = True
