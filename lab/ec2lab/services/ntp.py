"""Amazon's Time Sync Service: the host's clock by SNTP, without the smearing of leap seconds.

RFC 4330; https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/set-time.html
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time

log = logging.getLogger(__name__)

NTP_PORT = 123
# From 1900 to 1970.
EPOCH_S = 2208988800
CLIENT, SERVER = 3, 4
STRATUM, PRECISION = 3, -20
REFERENCE = bytes((169, 254, 169, 122))
ROOT_DISPERSION = 0x40  # 1 ms


def timestamp(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("!II", (whole + EPOCH_S) & 0xFFFFFFFF, int((seconds - whole) * 2**32))


def answer(query: bytes, received: float, now: float) -> bytes | None:
    """The reply to a client's request; None when it is none."""
    if len(query) < 48 or query[0] & 7 != CLIENT:
        return None
    version = query[0] >> 3 & 7
    head = struct.pack("!BBbbII4s", version << 3 | SERVER, STRATUM, query[2], PRECISION, 0, ROOT_DISPERSION, REFERENCE)
    return head + timestamp(received - 1) + query[40:48] + timestamp(received) + timestamp(now)


class TimeServer:
    """Serves one VPC on a UDP socket."""

    def __init__(self, udp: socket.socket, name: str) -> None:
        self._udp, self._open = udp, True
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while self._open:
            try:
                query, sender = self._udp.recvfrom(512)
                reply = answer(query, time.time(), time.time())
                if reply is not None:
                    self._udp.sendto(reply, sender)
            except OSError:
                if self._open:
                    log.debug("a request for the time was lost", exc_info=True)

    def close(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._udp.shutdown(socket.SHUT_RDWR)
        self._udp.close()
