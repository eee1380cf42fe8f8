"""Sends requests to URLs, each from a thread of its own, and prints what failed.

Arguments: a directory, then URLs. The file `ready` in the directory says that each URL has been
answered; the clients stop when the file `stop` exists. Exits with 1 if a request failed.
"""

import http.client
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

served = {}
failures = []


def client(url):
    address = urlsplit(url)
    while not stop.exists():
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        try:
            connection.request("GET", f"{address.path}?{address.query}")
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or not body.startswith(b"Hello"):
                failures.append(f"{url}: {response.status} {body[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error!r}")
        finally:
            connection.close()
        served[url] = served.get(url, 0) + 1
        if len(served) == len(set(urls)) and not ready.exists():
            ready.touch()


ready, stop = Path(sys.argv[1], "ready"), Path(sys.argv[1], "stop")
urls = sys.argv[2:]
threads = [threading.Thread(target=client, args=(url,)) for url in urls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for url, count in sorted(served.items()):
    print(f"{url}: {count} requests")
print(f"{len(failures)} failed", *failures[:5], sep="\n")
sys.exit(bool(failures))
