#!/usr/local/bin/wsgate
"""WsgiDAV with locks and properties in files, as a server of several processes needs them."""

import os

from wsgidav.wsgidav_app import WsgiDAVApp

VAR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "var")
os.makedirs(os.path.join(VAR, "dav"), exist_ok=True)


def shelf(module, name):
    return {"class": f"wsgidav.{module}", "kwargs": {"storage_path": os.path.join(VAR, name)}}


dav = WsgiDAVApp(
    {
        "provider_mapping": {"/": os.path.join(VAR, "dav")},
        "mount_path": f"/cgi-bin/{os.path.basename(__file__)}",
        "simple_dc": {"user_mapping": {"*": True}},
        "lock_storage": shelf("lock_man.lock_storage.LockStorageShelve", "locks"),
        "property_manager": shelf("prop_man.property_manager.ShelvePropertyManager", "properties"),
        "verbose": 1,
    }
)


def application(environ, start_response):
    """Closes its files, which writes them, before the client can ask the next process."""
    try:
        return list(dav(environ, start_response))
    finally:
        if environ["wsgi.run_once"]:
            dav.prop_manager._close()
            dav.lock_manager.storage.close()
