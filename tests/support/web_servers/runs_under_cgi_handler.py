
# What follows is added to scripts that run under Python's own CGI gateway.
if __name__ == "__main__":
    from wsgiref.handlers import CGIHandler

    CGIHandler().run(globals().get("application") or globals()["app"])
