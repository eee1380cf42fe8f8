"""The contenders behind Apache and nginx: their servers, configurations and versions."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import web_server
import peers
import server
import wrk
import workplace
from web_server import WebServer
from server import Server
from workplace import Unfit

WORKERS = 2

PACKAGES = {
    "/usr/sbin/apache2": "apache2-bin",
    "/usr/lib/apache2/modules/mod_wsgi.so": "libapache2-mod-wsgi-py3",
    # Needed to build mod_wsgi.
    "/usr/bin/apxs": "apache2-dev",
    "/usr/include/python3.*/Python.h": "python3-dev",
    "/usr/sbin/nginx": "nginx-light",
    "/usr/sbin/php-fpm*": "php-fpm",
    wrk.PROGRAM: "wrk",
}

BY_PIP = ("gunicorn", "granian")
MOD_WSGI = "mod_wsgi"

# Debian's own, for its own Python.
DEBIANS_MODULE = Path("/usr/lib/apache2/modules/mod_wsgi.so")


@dataclass(frozen=True)
class Contender:
    """A server, and its files of `web_servers/`."""

    name: str
    # A `Server` to start before the web server; None if the web server is enough.
    server: object
    # File by web server.
    sites: dict
    # Further values for the files.
    values: dict


@dataclass(frozen=True)
class Peers:
    """Everything that is installed for rows about web servers."""

    these: peers.Peers
    # mod_wsgi from PyPI; None if it does not build here.
    module: Path | None
    # The reason if it does not build.
    missing: str

    def contenders(self, app, is_hello):
        """All servers of `app`, wsgate first, and a web server without one."""
        these = self.these
        pool = these.wsgate(app, WORKERS, "--socket-mode", "666")
        everywhere = {"Apache": "fastcgi", "nginx": "fastcgi"}
        its_own = these.uwsgi(app, WORKERS, name="uWSGI, own protocol", by="--uwsgi-socket")
        all_of_them = [
            of_server(pool, {"Apache": "wsgate", "nginx": "wsgate"}),
            of_server(these.uwsgi(app, WORKERS, name="uWSGI, FastCGI"), everywhere),
            of_server(its_own, {"Apache": "uwsgi", "nginx": "uwsgi"}),
            *self.modules(app),
            of_server(these.flup(app, WORKERS), everywhere),
            of_server(self.gunicorn(app), {"nginx": "gunicorn"}),
            of_server(self.granian(app), {"nginx": "granian"}),
        ]
        if is_hello:
            pages = these.place.directory / "pages"
            php = of_server(self.php(pages), {"Apache": "php", "nginx": "fastcgi"})
            c_program = of_server(
                these.c_program("C with libfcgi", "hello_fastcgi", WORKERS), everywhere
            )
            null = Contender("nobody", None, {"Apache": "null", "nginx": "null"}, {})
            all_of_them += [php, c_program, null]
        return all_of_them

    def modules(self, app):
        """mod_wsgi in both its modes."""
        versions = {"of Debian": DEBIANS_MODULE, "of PyPI": self.module}
        for origin, module in versions.items():
            if module:
                values = {"MODULE": module, "VENV": self.these.venv, "APP": app}
                yield Contender(
                    f"mod_wsgi {origin}, daemon", None, {"Apache": "mod_wsgi_daemon"}, values
                )
        newest = {"MODULE": self.module or DEBIANS_MODULE, "VENV": self.these.venv, "APP": app}
        origin = "of PyPI" if self.module else "of Debian"
        yield Contender(
            f"mod_wsgi {origin}, embedded", None, {"Apache": "mod_wsgi_embedded"}, newest
        )

    def gunicorn(self, app):
        """As "Deploying Gunicorn" and "FAQ" (directory) in its documentation advise."""
        path = self.these.socket("gunicorn")
        words = (
            "--workers",
            WORKERS,
            "--bind",
            f"unix:{path}",
            "--worker-tmp-dir",
            "/dev/shm",
            "--no-control-socket",
        )
        file = self.module_of(app)
        return Server(
            "gunicorn, HTTP",
            (self.these.venv / "bin/gunicorn", *words, "--chdir", file.parent, file.stem),
            path,
        )

    def granian(self, app):
        """With one thread for Python in each process, like all servers here."""
        path = self.these.socket("granian")
        words = (
            "--interface",
            "wsgi",
            "--workers",
            WORKERS,
            "--blocking-threads",
            1,
            "--http",
            1,
            "--no-ws",
        )
        where = ("--uds", path, "--uds-permissions", 666)
        file = self.module_of(app)
        target = ("--working-dir", file.parent, f"{file.stem}:application")
        return Server(
            "granian, HTTP", (self.these.venv / "bin/granian", *words, *where, *target), path
        )

    def module_of(self, app):
        """A copy of the file with a name that can be imported."""
        path = app.with_name(f"{app.stem}_app.py")
        path.write_text(app.read_text())
        return path

    def php(self, pages):
        path = self.these.socket("php-fpm")
        values = {"LOG": "/dev/stderr", "SOCKET": path, "WORKERS": WORKERS}
        program = sorted(Path("/usr/sbin").glob("php-fpm*"))[-1]
        configuration = web_server.fill("php-fpm", pages.parent, values)
        return Server("php-fpm", (program, "--nodaemonize", "--fpm-config", configuration), path)

    @property
    def versions(self):
        """The versions of all contenders, in a line."""
        php = sorted(Path("/usr/sbin").glob("php-fpm?*"))[-1].name
        packages = [
            "apache2-bin",
            "nginx",
            "libapache2-mod-wsgi-py3",
            f"php{php.removeprefix('php-fpm')}-fpm",
            "wrk",
        ]
        by_pip = peers.pinned(*BY_PIP, *[MOD_WSGI] * bool(self.module))
        return (
            ", ".join([self.these.versions, *map(peers.debian, packages), *by_pip]) + self.missing
        )


def of_server(started, sites):
    return Contender(started.name, started, sites, {"SOCKET": started.socket})


def prepare(place):
    """Installs web servers, contenders and wrk."""
    workplace.install(PACKAGES, missing=lambda pattern: not any(Path("/").glob(pattern[1:])))
    these = peers.prepare(place)
    peers.install_by_pip(these.venv, *BY_PIP)
    try:
        peers.install_by_pip(these.venv, MOD_WSGI)
        [module] = these.venv.glob("lib/python3*/site-packages/mod_wsgi/server/mod_wsgi-*.so")
        missing = ""
    except Unfit as unfit:
        module = None
        missing = f"; mod_wsgi of PyPI is not there: {str(unfit).splitlines()[0]}"
    # Processes of the web servers have another user, who must enter the directory.
    place.directory.chmod(0o755)
    pages = place.directory / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "index.php").write_text((workplace.HERE / "apps/index.php").read_text())
    (pages / "index.txt").write_text("Hello from WSGI\n")
    return Peers(these, module, missing)


@contextlib.contextmanager
def pages(place, contenders, body, panel):
    """Starts `contenders` behind each web server; yields their pages, once they are the same."""
    with contextlib.ExitStack() as stack:
        for each in contenders:
            if each.server:
                # Web servers must be able to connect.
                stack.enter_context(server.start(place, each.server, umask=0))
        found = {}
        for program in web_server.PROGRAMS:
            for each in contenders:
                if site := each.sites.get(program):
                    page = page_behind(
                        place, stack, each, program, site, body, panel.format(program)
                    )
                    found.setdefault(program, []).append(page)
        for same in found.values():
            compare(same)
        yield found


def page_behind(place, stack, contender, program, site, body, panel):
    values = {"PAGES": place.directory / "pages", "WORKERS": WORKERS, **contender.values}
    running = stack.enter_context(
        web_server.start(place, WebServer(program, contender.name, site, values))
    )
    behind = (contender.server.argv,) if contender.server else ()
    return wrk.Page(f"{contender.name} ({panel})", running, body, behind, panel)


def compare(same):
    """Raises unless all responses equal the first; of a web server alone only the body counts."""
    first = wrk.look(same[0])
    for page in same:
        found = wrk.look(page)
        expected = (200, first[1], page.body.read_bytes())
        if page.name.startswith("nobody"):
            found = (found[0], first[1], found[2])
        if found != expected:
            raise Unfit(
                f"`{page.name}` answers\n{found}\ninstead of\n{expected}\n"
                f"{server.end_of(page.web_server.log)}"
            )
