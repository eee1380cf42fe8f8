
# These lines are added to scripts behind warm pools. Each request leaves a line in `var/served`,
# which says whether its process had loaded this file before. A request for that line alone reaches
# no application.
def _tell_who_serves(application):
    import os

    born, here = os.getpid(), os.path.abspath(__file__)
    served = os.path.join(os.path.dirname(here), "..", "var", "served")

    def tells_who_serves(environ, start_response):
        mode = "cold" if environ["wsgi.run_once"] else "warm"
        if "HTTP_X_WHO_SERVES" in environ:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{born} {os.getpid()} {mode}".encode()]
        line = f"{os.path.basename(here)} {mode}\n"
        file = os.open(served, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.write(file, line.encode())
        os.close(file)
        return application(environ, start_response)

    return tells_who_serves


for _name in "application", "app":
    if _name in globals():
        application = _tell_who_serves(globals()[_name])
        break
