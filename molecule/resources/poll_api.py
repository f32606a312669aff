"""Asks an API server's /readyz, which needs no certificate, until a file appears; prints as JSON how it was served.

poll_api.py KUBECONFIG STOP_FILE
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import yaml

HTTPS_PORT = 443
INTERVAL_S = 0.25
# A client that waits longer for a dead server than this does not notice that another one would answer.
REQUEST_TIMEOUT_S = 2.0
# Whoever forgets to make the stop file does not leave this running for ever.
LONGEST_S = 900.0


def ask(host: str, port: int, context: ssl.SSLContext) -> None:
    """One answer by one connection, so that the balancer chooses anew each time. Raises OSError."""
    connection = http.client.HTTPSConnection(host, port, timeout=REQUEST_TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"no answer: {error!r}") from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise OSError(f"status {status}")


def main(kubeconfig: Path, stop: Path) -> None:
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    server = urlsplit(cluster["server"])
    host, port = server.hostname or "", server.port or HTTPS_PORT
    asked = failed = 0
    longest_gap = 0.0
    errors = set()
    began = served = time.monotonic()
    while not stop.exists() and time.monotonic() - began < LONGEST_S:
        asked += 1
        try:
            ask(host, port, context)
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
    main(Path(sys.argv[1]), Path(sys.argv[2]))
