"""Lists what clients could fetch below a document root, as far as `.htaccess` files allow that.

Standard input has NUL-separated paths: the document root, the directory of the script, the script,
and further files. Standard output has a kind and a path for each finding, each ended by NUL.
"""

import os
import re
import sys
from fnmatch import fnmatchcase

MOST_ENTRIES = 20_000
REPOSITORIES = {".git", ".hg", ".svn", ".bzr"}
REFUSALS = [["403"], ["404"], ["410"], ["gone"]]
PROGRAM_HANDLERS = {"cgi-script", "fcgid-script"}
KINDS = [
    ("secret", r"\.env(\..+)?|.*\.(pem|key|p12|pfx|kdbx|keystore)|id_(rsa|dsa|ecdsa|ed25519)"
               r"|\.(pgpass|netrc|my\.cnf|npmrc|pypirc)"
               r"|(credentials?|secrets?|passwords?|local_settings)\.(json|ya?ml|toml|txt|py)"),
    ("database", r".*\.(sqlite3?|db3?|mdb|sql|dump|rdb)(-wal|-shm|-journal|\.(gz|bz2|xz|zip))?"),
    ("settings", r".*\.(ini|cfg|conf)"),
    ("source", r".*\.(py[cowx]?|wsgi|fcgi)([~]|\.(bak|orig|old|save|sw[op]|draft))?"),
    ("log", r".*\.log(\.\d+)?"),
]
KINDS = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in KINDS]


def kind_of(name):
    # Apache's own configuration denies names that begin with `.ht`.
    if name.startswith(".ht") or re.search(r"\.(example|sample|dist|template)$", name):
        return None
    return next((kind for kind, pattern in KINDS if pattern.fullmatch(name)), None)


class Directive:
    """A directive with the sections that it is in: a kind, arguments and the number of each."""

    def __init__(self, name, arguments, sections):
        self.name, self.arguments, self.sections = name.lower(), arguments, tuple(sections)

    def holds_for(self, file):
        return all(holds(kind, arguments, file) for kind, arguments, _ in self.sections)

    @property
    def files_section(self):
        """The number of the innermost section for files. None if there is no such section."""
        numbers = [number for kind, _, number in self.sections if kind in ("files", "filesmatch")]
        return numbers[-1] if numbers else None

    @property
    def needs_all(self):
        return any(kind == "requireall" for kind, *_ in self.sections)


def holds(kind, arguments, file):
    if kind == "ifmodule":
        return not arguments[0].startswith("!")
    if kind == "files" and arguments[0] != "~":
        return fnmatchcase(file, arguments[0])
    if kind in ("files", "filesmatch"):
        return matches(arguments[-1], file)
    if kind in ("limit", "limitexcept"):
        return ("GET" in map(str.upper, arguments)) == (kind == "limit")
    return kind in ("requireall", "requireany")


def matches(pattern, text, ignore_case=False):
    negated = pattern.startswith("!")
    try:
        # PCRE's `\z` is Python's `\Z`.
        found = re.search(pattern[negated:].replace(r"\z", r"\Z"), text,
                          re.IGNORECASE if ignore_case else 0)
    except re.error:
        return False
    return bool(found) != negated


def words(line):
    return [quoted or plain for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)]


def directives(directory, known={}):
    """The directives of the `.htaccess` file in `directory`."""
    if directory not in known:
        known[directory] = list(parse(os.path.join(directory, ".htaccess")))
    return known[directory]


def parse(path):
    if not os.path.isfile(path):
        return
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(1 << 20)
    except OSError:
        return
    sections = []
    for number, line in enumerate(text.replace("\\\n", " ").splitlines()):
        line = line.strip()
        if line.startswith("</"):
            del sections[-1:]
        elif line.startswith("<"):
            kind, *arguments = words(line.strip("<>")) or [""]
            sections.append((kind.lower(), arguments or [""], number))
        elif line and not line.startswith("#"):
            name, *arguments = words(line)
            yield Directive(name, arguments, sections)


def access(rules):
    """Do the rules for access deny it? None if there is no such rule.

    The rules of a later section replace those of the sections before.
    """
    of_section = {}
    for rule in rules:
        if rule.name in ("require", "order", "allow", "deny"):
            of_section.setdefault(rule.files_section, []).append(rule)
    found = [denied for denied in map(is_denied, of_section.values()) if denied is not None]
    return found[-1] if found else None


def is_denied(rules):
    """Do the rules of one section deny access? None if they say nothing."""
    some, every = [], []
    denied, order, allowed = None, "deny,allow", False
    for rule in rules:
        arguments = [argument.lower() for argument in rule.arguments]
        if rule.name == "require":
            # `not` takes away what others grant, from some clients.
            if arguments[:1] != ["not"]:
                (every if rule.needs_all else some).append(arguments == ["all", "granted"])
        elif rule.name == "order":
            order = "".join(arguments)
        elif rule.name == "allow" and arguments == ["from", "all"]:
            allowed, denied = True, bool(denied)
        elif rule.name == "deny" and arguments == ["from", "all"]:
            denied = True
    if some or every:
        return not (any(some) or (every and all(every)))
    return denied and not (allowed and order == "deny,allow") if denied is not None else None


def refuses(rule, url):
    """Does the rule answer a request for `url` with an error?"""
    if [argument.lower() for argument in rule.arguments[:1]] not in REFUSALS:
        return False
    target = rule.arguments[-1]
    if rule.name == "redirectmatch":
        return matches(target, url)
    # A path stands for all URLs below it.
    return rule.name == "redirect" and (url + "/").startswith(target.rstrip("/") + "/")


def expand(text, variables):
    return re.sub(r"%\{([^}]*)\}", lambda found: variables.get(found[1].upper(), ""), text)


def condition(rule, variables):
    text, pattern, *flags = rule.arguments
    path = expand(text, variables)
    negated = pattern.startswith("!")
    test = pattern[negated:]
    if test in ("-f", "-d", "-s", "-e", "-l"):
        check = {"-d": os.path.isdir, "-l": os.path.islink}.get(test, os.path.isfile)
        return check(path) != negated
    if test.startswith("="):
        return (path == test[1:]) != negated
    return matches(pattern, path, "NC" in "".join(flags).upper())


def are_met(conditions):
    """Are all groups of conditions met? `OR` joins a condition with the next one."""
    group = False
    for is_met, continues in conditions:
        group = group or is_met
        if not continues:
            if not group:
                return False
            group = False
    return True


def rewritten(rules, root, directory, path):
    """Do the rewrite rules of `directory` refuse `path`, or pass it to another file?"""
    variables = {
        "REQUEST_FILENAME": path,
        "SCRIPT_FILENAME": path,
        "REQUEST_URI": "/" + os.path.relpath(path, root),
        "REQUEST_METHOD": "GET",
    }
    relative = os.path.relpath(path, directory)
    conditions = []
    for rule in rules:
        if rule.name == "rewritecond" and len(rule.arguments) >= 2:
            flags = "".join(rule.arguments[2:]).upper().strip("[]").split(",")
            conditions.append((condition(rule, variables), "OR" in flags))
        elif rule.name == "rewriterule" and len(rule.arguments) >= 2:
            pattern, target, *flags = rule.arguments
            flags = {flag.strip().upper() for flag in "".join(flags).strip("[]").split(",")}
            applies = are_met(conditions) and matches(pattern, relative, "NC" in flags)
            conditions = []
            if not applies:
                continue
            if target != "-" or flags & {"F", "FORBIDDEN", "G", "GONE", "R=403", "R=404"}:
                return True
            if flags & {"L", "LAST", "END"}:
                return False
    return False


def levels_of(root, path):
    """The directories from `root` to that of `path`."""
    levels = [root]
    for part in os.path.relpath(os.path.dirname(path), root).split(os.sep):
        if part != ".":
            levels.append(os.path.join(levels[-1], part))
    return levels


def is_reachable(root, path):
    name = os.path.basename(path)
    by_directory = by_file = None
    rewriting = None
    for level in levels_of(root, path):
        rules = [rule for rule in directives(level) if rule.holds_for(name)]
        found = access(rule for rule in rules if rule.files_section is None)
        by_directory = by_directory if found is None else found
        found = access(rule for rule in rules if rule.files_section is not None)
        by_file = by_file if found is None else found
        for rule in rules:
            if refuses(rule, "/" + os.path.relpath(path, root)):
                return False
        engine = [rule.arguments for rule in rules if rule.name == "rewriteengine"]
        if engine:
            is_on = engine[-1][:1] and engine[-1][0].lower() == "on"
            rewriting = (rules, level) if is_on else None
    if by_directory if by_file is None else by_file:
        return False
    return rewriting is None or not rewritten(rewriting[0], root, rewriting[1], path)


def is_run(root, path):
    """Do `.htaccess` files make `path` a program? Web servers run or refuse those."""
    name = os.path.basename(path)
    of_directory = of_file = None
    extensions = {}
    for level in levels_of(root, path):
        for rule in directives(level):
            arguments = [argument.lower() for argument in rule.arguments]
            if not arguments or not rule.holds_for(name):
                continue
            if rule.name == "sethandler" and rule.files_section is None:
                of_directory = arguments[0]
            elif rule.name == "sethandler":
                of_file = arguments[0]
            elif rule.name == "addhandler":
                extensions.update((one.lstrip("."), arguments[0]) for one in arguments[1:])
            elif rule.name == "removehandler":
                for one in arguments:
                    extensions.pop(one.lstrip("."), None)
    handler = of_file or of_directory
    if handler in (None, "none"):
        # The last extension that has a handler counts.
        own = [extensions[one] for one in name.lower().split(".")[1:] if one in extensions]
        handler = own[-1] if own else None
    return handler in PROGRAM_HANDLERS


def candidates(root, start, script, files):
    """Pairs of a kind and a path, and the file that a client would request."""
    for name in sorted(REPOSITORIES):
        yield "repository", os.path.join(root, name), os.path.join(root, name, "config")
    count = 0
    walked = set()
    # Web servers follow links to directories, too.
    for directory, names, found in os.walk(start, followlinks=True):
        target = os.path.realpath(directory)
        if target in walked:
            names.clear()
            continue
        walked.add(target)
        count += len(names) + len(found)
        if count > MOST_ENTRIES:
            break
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(os.path.join(path, "pyvenv.cfg")):
                yield "virtualenv", path, os.path.join(path, "pyvenv.cfg")
            elif name in REPOSITORIES:
                yield "repository", path, os.path.join(path, "config")
        names[:] = sorted(
            name for name in names
            if name not in REPOSITORIES | {"__pycache__", "node_modules", ".well-known"}
            and not os.path.isfile(os.path.join(directory, name, "pyvenv.cfg"))
        )
        for name in sorted(found):
            path = os.path.join(directory, name)
            if path != script and kind_of(name):
                yield kind_of(name), path, path
    for path in map(os.path.normpath, files + [os.path.join(root, ".env")]):
        if path != script and path.startswith(root + os.sep) and kind_of(os.path.basename(path)):
            yield kind_of(os.path.basename(path)), path, path


def main():
    root, start, script, *files = map(os.fsdecode, sys.stdin.buffer.read().split(b"\0"))
    venvs, seen = [], set()
    for kind, path, requested in candidates(root, start, script, files):
        inside = any(path.startswith(venv + os.sep) for venv in venvs)
        if path in seen or inside or not os.path.exists(requested):
            continue
        seen.add(path)
        if kind == "virtualenv":
            venvs.append(path)
        # Clients could run the python of a virtualenv where all files are programs.
        if kind != "virtualenv" and is_run(root, requested):
            continue
        if is_reachable(root, requested):
            sys.stdout.buffer.write(os.fsencode(kind + "\0" + path + "\0"))


main()
