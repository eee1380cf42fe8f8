"""Who is measured behind Apache and nginx: each contender with its server, its web server's file, and its versions."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import front
import peers
import server
import visitors
import workplace
from front import Front
from server import Server
from workplace import Unfit

WORKERS = 2

PACKAGES = {
    "/usr/sbin/apache2": "apache2-bin",
    "/usr/lib/apache2/modules/mod_wsgi.so": "libapache2-mod-wsgi-py3",
    # What mod_wsgi is built with.
    "/usr/bin/apxs": "apache2-dev",
    "/usr/include/python3.*/Python.h": "python3-dev",
    "/usr/sbin/nginx": "nginx-light",
    "/usr/sbin/php-fpm*": "php-fpm",
    visitors.PROGRAM: "wrk",
}

BY_PIP = ("gunicorn", "granian")
MOD_WSGI = "mod_wsgi"

# Debian's own, for its own Python.
DEBIANS_MODULE = Path("/usr/lib/apache2/modules/mod_wsgi.so")


@dataclass(frozen=True)
class Contender:
    """A server, and which files of `fronts/` make it one of a web server's."""

    name: str
    # A `Server` to be started before; None if the web server does it all.
    server: object
    # The file for each web server.
    sites: dict
    # What else is put into the files.
    values: dict


@dataclass(frozen=True)
class Peers:
    """What is installed for rows about web servers."""

    these: peers.Peers
    # mod_wsgi as built from PyPI; None if it does not build here.
    module: Path | None
    # Why it does not.
    missing: str

    def contenders(self, app, is_hello):
        """All who can serve `app`, ours first, and who does without it."""
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
            c_program = of_server(these.c_program("C with libfcgi", "hello_fastcgi", WORKERS), everywhere)
            null = Contender("nobody", None, {"Apache": "null", "nginx": "null"}, {})
            all_of_them += [php, c_program, null]
        return all_of_them

    def modules(self, app):
        """mod_wsgi in both its modes."""
        versions = {"of Debian": DEBIANS_MODULE, "of PyPI": self.module}
        for origin, module in versions.items():
            if module:
                values = {"MODULE": module, "VENV": self.these.venv, "APP": app}
                yield Contender(f"mod_wsgi {origin}, daemon", None, {"Apache": "mod_wsgi_daemon"}, values)
        newest = {"MODULE": self.module or DEBIANS_MODULE, "VENV": self.these.venv, "APP": app}
        origin = "of PyPI" if self.module else "of Debian"
        yield Contender(f"mod_wsgi {origin}, embedded", None, {"Apache": "mod_wsgi_embedded"}, newest)

    def gunicorn(self, app):
        """As "Deploying Gunicorn" in its documentation has it, and "FAQ" about the directory."""
        path = self.these.socket("gunicorn")
        words = ("--workers", WORKERS, "--bind", f"unix:{path}", "--worker-tmp-dir", "/dev/shm", "--no-control-socket")
        file = self.module_of(app)
        return Server("gunicorn, HTTP", (self.these.venv / "bin/gunicorn", *words, "--chdir", file.parent, file.stem), path)

    def granian(self, app):
        """One thread for Python in each process, as all have here."""
        path = self.these.socket("granian")
        words = ("--interface", "wsgi", "--workers", WORKERS, "--blocking-threads", 1, "--http", 1, "--no-ws")
        where = ("--uds", path, "--uds-permissions", 666)
        file = self.module_of(app)
        target = ("--working-dir", file.parent, f"{file.stem}:application")
        return Server("granian, HTTP", (self.these.venv / "bin/granian", *words, *where, *target), path)

    def module_of(self, app):
        """The same file under a name that can be imported."""
        path = app.with_name(f"{app.stem}_app.py")
        path.write_text(app.read_text())
        return path

    def php(self, pages):
        path = self.these.socket("php-fpm")
        values = {"LOG": "/dev/stderr", "SOCKET": path, "WORKERS": WORKERS}
        program = sorted(Path("/usr/sbin").glob("php-fpm*"))[-1]
        configuration = front.fill("php-fpm", pages.parent, values)
        return Server("php-fpm", (program, "--nodaemonize", "--fpm-config", configuration), path)

    @property
    def versions(self):
        """What is measured, in a line."""
        php = sorted(Path("/usr/sbin").glob("php-fpm?*"))[-1].name
        packages = ["apache2-bin", "nginx", "libapache2-mod-wsgi-py3", f"php{php.removeprefix('php-fpm')}-fpm", "wrk"]
        by_pip = peers.pinned(*BY_PIP, *[MOD_WSGI] * bool(self.module))
        return ", ".join([self.these.versions, *map(peers.debian, packages), *by_pip]) + self.missing


def of_server(started, sites):
    return Contender(started.name, started, sites, {"SOCKET": started.socket})


def prepare(place):
    """Has everything installed that stands before and behind a web server here."""
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
    # The web servers' own processes are somebody else's, and have to come by here.
    place.directory.chmod(0o755)
    pages = place.directory / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "index.php").write_text((workplace.HERE / "apps/index.php").read_text())
    (pages / "index.txt").write_text("Hello from WSGI\n")
    return Peers(these, module, missing)


@contextlib.contextmanager
def pages(place, contenders, body, panel):
    """Starts `contenders` behind each web server; gives their pages by web server, looked at and found to be the same."""
    with contextlib.ExitStack() as stack:
        for each in contenders:
            if each.server:
                # Web servers need to be let in.
                stack.enter_context(server.start(place, each.server, umask=0))
        found = {}
        for program in front.PROGRAMS:
            for each in contenders:
                if site := each.sites.get(program):
                    page = visit(place, stack, each, program, site, body, panel.format(program))
                    found.setdefault(program, []).append(page)
        for same in found.values():
            compare(same)
        yield found


def visit(place, stack, contender, program, site, body, panel):
    values = {"PAGES": place.directory / "pages", "WORKERS": WORKERS, **contender.values}
    running = stack.enter_context(front.start(place, Front(program, contender.name, site, values)))
    behind = (contender.server.argv,) if contender.server else ()
    return visitors.Visited(f"{contender.name} ({panel})", running, body, behind, panel)


def compare(same):
    """Complains unless all replies are those of the first, but for that of nobody, which need have its body alone."""
    first = visitors.look(same[0])
    for page in same:
        found = visitors.look(page)
        expected = (200, first[1], page.body.read_bytes())
        if page.name.startswith("nobody"):
            found = (found[0], first[1], found[2])
        if found != expected:
            raise Unfit(f"`{page.name}` answers\n{found}\nin place of\n{expected}\n{server.end_of(page.front.log)}")
