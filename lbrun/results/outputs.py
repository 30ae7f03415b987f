"""``outputs.jsonl``: the answers, a line a sample, where ``report.record_outputs`` asks for them."""

from __future__ import annotations

import array
from collections.abc import Callable
from pathlib import Path

import msgspec

FILE_NAME = "outputs.jsonl"
_BUFFER_BYTES = 64 << 10  # what a kill -9 of the test may lose


class OutputLog:
    """Appends answers as they complete. When the disk is full, `error` says so and the run goes on.

    token_ids: payloads are int32 token ids; else UTF-8 text. redact: takes secrets out of text.
    """

    def __init__(self, run_dir: Path, *, token_ids: bool, redact: Callable[[str], str] = str) -> None:
        self.error: str | None = None
        self._redact = redact
        self._token_ids = token_ids
        self._encode = msgspec.json.Encoder().encode
        try:
            self._file = (run_dir / FILE_NAME).open("ab", buffering=_BUFFER_BYTES)
        except OSError as error:
            self.error = f"{FILE_NAME} stopped: {error}"

    def add(self, query_id: int, sample_index: int, payload: bytes | None) -> None:
        """Keep one answer."""
        if self.error is not None or payload is None:
            return
        line: dict[str, object] = {"query_id": query_id, "sample_index": sample_index}
        if self._token_ids:
            line["token_ids"] = array.array("i", payload).tolist()
        else:
            line["text"] = self._redact(payload.decode("utf-8", "replace"))
        try:
            self._file.write(self._encode(line) + b"\n")
        except OSError as error:
            self.error = f"{FILE_NAME} stopped: {error}"

    def close(self) -> None:
        """Write what is buffered, and close."""
        if hasattr(self, "_file"):
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or f"{FILE_NAME} stopped: {error}"
