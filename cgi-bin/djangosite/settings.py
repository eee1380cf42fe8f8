"""Settings of the sample site."""

import os
import secrets
import tempfile
from pathlib import Path

# The database and the key. A directory beside this file, or above it, may be one that a web server shows (cPanel has
# cgi-bin in public_html), and home directories are not.
DATA = Path(os.environ.get("DJANGO_DATA") or Path.home() / ".local/share/djangosite").resolve()

# What a web server says of itself in CGI.
for shown in filter(None, map(os.environ.get, ("DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT"))):
    if DATA.is_relative_to(Path(shown).resolve()):
        raise RuntimeError(
            f"visitors could fetch the database: {DATA} lies in {shown}; let DJANGO_DATA name a directory elsewhere"
        )

DATA.mkdir(mode=0o700, parents=True, exist_ok=True)


def kept_secret(path):
    """A key that is made once. Each request may be a process of its own, and all must know the same one."""
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as fresh:
            fresh.write(secrets.token_urlsafe(50))
            fresh.flush()
            try:
                # The name appears with the whole key behind it, and only for the first of two that race.
                os.link(fresh.name, path)
            except FileExistsError:
                pass
    return path.read_text()


SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or kept_secret(DATA / "django.secret")
DEBUG = False
# A sample answers to whatever it is called. A real site lists its names, or links in its mails can be forged.
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

# Without a slash in front, so that Django puts the script's own path there.
STATIC_URL = "static/"
USE_TZ = True
