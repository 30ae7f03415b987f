"""Standard output and error of a process whose output goes to a file: redacted, line by line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from threading import RLock
from typing import TextIO


class RedactedStream(io.TextIOBase):
    """Passes whole lines on to another stream, without secrets. Usable from any thread.

    redact: set as soon as the secrets are known; until then nothing is changed.
    """

    def __init__(self, stream: TextIO, redact: Callable[[str], str] = str) -> None:
        self.redact = redact
        self._stream = stream
        self._rest = ""
        self._lock = RLock()

    def write(self, text: str) -> int:
        """Write the lines that are whole, and keep the rest."""
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline:
                self._stream.write(self.redact(lines) + newline)
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing: what is kept back is no whole line, and half a secret is not known for one."""

    def finish(self) -> None:
        """Write what is left, at the end of the process."""
        with self._lock:
            rest, self._rest = self._rest, ""
            self._stream.write(self.redact(rest))
            self._stream.flush()

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream below."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Of the stream below."""
        return self._stream.errors

    def fileno(self) -> int:
        """Of the stream below, for what writes without Python."""
        return self._stream.fileno()


class GuardedOutput:
    """Puts `RedactedStream` in place of sys.stdout and sys.stderr."""

    def __init__(self, redact: Callable[[str], str] = str) -> None:
        self._streams = RedactedStream(sys.stdout, redact), RedactedStream(sys.stderr, redact)
        sys.stdout, sys.stderr = self._streams

    def use(self, redact: Callable[[str], str]) -> None:
        """Redact from now on."""
        for stream in self._streams:
            stream.redact = redact

    def finish(self) -> None:
        """Write what is left, at the end of the process."""
        for stream in self._streams:
            stream.finish()
