"""Serves a WSGI file by flup: by_flup.py SOCKET PROCESSES FILE."""

import runpy
import sys

from flup.server.fcgi_fork import WSGIServer

path, processes, file = sys.argv[1:]
# As many processes at the start as there may ever be.
count = {"minSpare": 1, "maxSpare": int(processes), "maxChildren": int(processes)}
WSGIServer(runpy.run_path(file)["application"], bindAddress=path, debug=False, **count).run()
