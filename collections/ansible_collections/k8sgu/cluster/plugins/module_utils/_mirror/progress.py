# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports progress while the mirror fills.

Work happens in threads; only the thread that called `follow` prints, since Ansible's display belongs to it.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from typing import Any, Callable, Iterable

Say = Callable[[str], None]
# Often enough to show that it is working, rarely enough to read.
HEARTBEAT_S = 10.0


class Progress:
    """Counts finished items and tracks running ones; safe to use from any thread."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._messages: queue.Queue[str] = queue.Queue()
        self._lock = threading.Lock()
        self._active: dict[str, tuple[float, str]] = {}
        self._done = 0
        self._total = 0
        self.stop = threading.Event()

    def expect(self, more: int) -> None:
        with self._lock:
            self._total += more

    def say_now(self, text: str) -> None:
        """Print at once. Only for the thread that calls `follow`."""
        self._say(text)

    def note(self, text: str) -> None:
        self._messages.put(text)

    def notes(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.note(text)

    def start(self, item: str) -> None:
        with self._lock:
            self._active[item] = (time.monotonic(), "")

    def update(self, item: str, state: str) -> None:
        with self._lock:
            if item in self._active:
                self._active[item] = (self._active[item][0], state)

    def finish(self, item: str, text: str) -> None:
        with self._lock:
            self._active.pop(item, None)
            self._done += 1
            done = self._done
        width = len(str(self._total))
        self.note(f"[{done:{width}}/{self._total}] {text}")

    def follow(self, futures: Iterable[Future[Any]]) -> None:
        """Print until every future is done; then raise the first failure, if any."""
        waiting = set(futures)
        failure: BaseException | None = None
        beat = time.monotonic() + HEARTBEAT_S
        try:
            while waiting:
                self._print(0.2)
                if time.monotonic() >= beat:
                    beat = time.monotonic() + HEARTBEAT_S
                    self._print_active()
                for future in [future for future in waiting if future.done()]:
                    waiting.discard(future)
                    error = None if future.cancelled() else future.exception()
                    if error is not None and failure is None:
                        failure = error
                        self.stop.set()
                        for other in waiting:
                            other.cancel()
        except BaseException:
            self.stop.set()
            for other in waiting:
                other.cancel()
            raise
        self._print(0)
        if failure is not None:
            raise failure

    def _print(self, timeout: float) -> None:
        try:
            self._say(self._messages.get(timeout=timeout) if timeout else self._messages.get_nowait())
            while True:
                self._say(self._messages.get_nowait())
        except queue.Empty:
            return

    def _print_active(self) -> None:
        with self._lock:
            active = list(self._active.items())
        if active:
            now = time.monotonic()
            parts = [
                f"{item} ({', '.join(filter(None, [state, _clock(now - since)]))})" for item, (since, state) in active
            ]
            self._say("    under way: " + "; ".join(parts))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
