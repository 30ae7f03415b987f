"""``events.jsonl``: what happened to the pool, one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

FILE_NAME = "events.jsonl"


class EventLog:
    """Appends events, each in one write, so that a killed run ends with a whole line or none.

    Usable from any thread. When the disk is full, `error` says so, the events that follow are counted in
    `n_lost`, and the run goes on.

    start_ns: the run's start on ``time.monotonic_ns()``. redact: takes secrets out of reasons.
    """

    def __init__(
        self, run_dir: Path, start_ns: int | None = None, *, redact: Callable[[str], str] = str
    ) -> None:
        self.error: str | None = None
        self.n_lost = 0
        self._start_ns = time.monotonic_ns() if start_ns is None else start_ns
        self._lock = Lock()
        self._redact = redact
        self._closed = False
        try:
            self._file = (run_dir / FILE_NAME).open("ab", buffering=0)
        except OSError as error:
            self._fail(error)

    def write(
        self, event: str, *, server: str | None = None, reason: str | None = None, **more: object
    ) -> None:
        """Append an event: what, at which server (URL), why, and whatever else belongs to it.

        Every line also has ``ts`` (wall clock, ISO 8601 in UTC) and ``t_s`` (seconds since the start, by
        the monotonic clock).
        """
        t_s = (time.monotonic_ns() - self._start_ns) / 1e9
        line: dict[str, object] = {
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "t_s": round(t_s, 6),
            "event": event,
        }
        if server is not None:
            line["server"] = server
        if reason is not None:
            line["reason"] = self._redact(reason)
        line.update(more)
        with self._lock:
            if self.error is not None or self._closed:
                self.n_lost += 1
                return
            try:
                self._file.write(json.dumps(line, default=str).encode() + b"\n")
            except OSError as error:
                self._fail(error)
                self.n_lost += 1

    def close(self) -> None:
        """Close the file. May be called again."""
        with self._lock:
            if not self._closed and self.error is None:
                self._file.close()
            self._closed = True

    def _fail(self, error: OSError) -> None:
        self.error = f"{FILE_NAME} stopped: {error}"
        if hasattr(self, "_file"):
            self._file.close()


def read_events(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; a last line that was cut is left out, a missing file has none."""
    path = run_dir / FILE_NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
