"""A CGI request as a web server sends it, its response, and CGIHandler's part of the script."""

import re

# Makes a CGI script of the WSGI file by the standard library.
BY_THE_STANDARD_LIBRARY = """

if __name__ == "__main__":
    from wsgiref.handlers import CGIHandler

    CGIHandler().run(application)
"""


def status_and_body(response):
    """Status and body of a CGI response (RFC 3875 6.2); None if it is not one."""
    head, *bodies = re.split(rb"\r?\n\r?\n", response, maxsplit=1)
    status = re.search(rb"^status: *([^\r\n]*)", head, re.IGNORECASE | re.MULTILINE)
    return (status[1] if status else b"200 OK", bodies[0]) if bodies else None


def request(place, script):
    """The environment that Apache 2.4 gives a CGI script for a browser's GET request."""
    directory = str(place.directory)
    return {
        "HTTP_HOST": "www.example.org",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
        "HTTP_CONNECTION": "keep-alive",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SERVER_SIGNATURE": "<address>Apache/2.4.62 (Debian) Server at www.example.org "
        "Port 80</address>\n",
        "SERVER_SOFTWARE": "Apache/2.4.62 (Debian)",
        "SERVER_NAME": "www.example.org",
        "SERVER_ADDR": "192.0.2.80",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "192.0.2.17",
        "DOCUMENT_ROOT": "/var/www/html",
        "REQUEST_SCHEME": "http",
        "CONTEXT_PREFIX": "/cgi-bin/",
        "CONTEXT_DOCUMENT_ROOT": directory,
        "SERVER_ADMIN": "webmaster@example.org",
        "SCRIPT_FILENAME": str(script),
        "REMOTE_PORT": "50412",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "name=value",
        "REQUEST_URI": f"/cgi-bin/{script.name}?name=value",
        "SCRIPT_NAME": f"/cgi-bin/{script.name}",
    }
