"""Asks until a file appears, and prints as JSON how it was served: a page, or /readyz of an API server, open to all.

poll_api.py KUBECONFIG|http://ADDRESS STOP_FILE
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import yaml

HTTPS_PORT = 443
INTERVAL_S = 0.25
# A client that waits longer for a dead server than this does not notice that another one would answer.
REQUEST_TIMEOUT_S = 2.0
# Whoever forgets to make the stop file does not leave this running for ever.
LONGEST_S = 900.0


def ask(connection: http.client.HTTPConnection, path: str) -> None:
    """One answer on a new connection, so that the load balancer chooses a server each time. Raises OSError."""
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"no answer: {error!r}") from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise OSError(f"status {status}")


def client(target: str) -> Callable[[], None]:
    """Asks once, of a page or of the API server that a kubeconfig names."""
    if target.startswith("http://"):
        page = urlsplit(target)
        return lambda: ask(http.client.HTTPConnection(page.netloc, timeout=REQUEST_TIMEOUT_S), page.path or "/")
    cluster = yaml.safe_load(Path(target).read_text())["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    server = urlsplit(cluster["server"])
    host, port = server.hostname or "", server.port or HTTPS_PORT
    return lambda: ask(http.client.HTTPSConnection(host, port, timeout=REQUEST_TIMEOUT_S, context=context), "/readyz")


def main(target: str, stop: Path) -> None:
    ask_once = client(target)
    asked = failed = 0
    longest_gap = 0.0
    errors = set()
    began = served = time.monotonic()
    while not stop.exists() and time.monotonic() - began < LONGEST_S:
        asked += 1
        try:
            ask_once()
        except OSError as error:
            failed += 1
            errors.add(str(error))
        else:
            now = time.monotonic()
            longest_gap, served = max(longest_gap, now - served), now
        time.sleep(INTERVAL_S)
    longest_gap = max(longest_gap, time.monotonic() - served)
    report = {"asked": asked, "failed": failed, "longest_gap_s": round(longest_gap, 2), "errors": sorted(errors)}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
