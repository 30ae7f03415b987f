"""The server's own record of requests and answers, kept apart from everything that the client says.

One line of JSON for each event: ``["asked", KEY]`` when a generation request was read, and
``["answered", KEY]`` when the last byte of a whole, unspoiled answer was handed to the kernel. KEY stands for
the right answer to the request (see `answer_key`). Lines are written at once, so that they survive SIGKILL.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ASKED, ANSWERED = "asked", "answered"


def answer_key(ids: Sequence[int]) -> str:
    """A short name for an answer's token ids; requests with the same prompt and limits share it."""
    return hashlib.blake2b(b",".join(b"%d" % i for i in ids), digest_size=8).hexdigest()


class Journal:
    """Appends events to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="ascii")

    def asked(self, ids: Sequence[int]) -> None:
        """A generation request was read."""
        self._write(ASKED, ids)

    def answered(self, ids: Sequence[int]) -> None:
        """A whole answer was sent."""
        self._write(ANSWERED, ids)

    def _write(self, event: str, ids: Sequence[int]) -> None:
        self._file.write(json.dumps([event, answer_key(ids)]) + "\n")


@dataclass(frozen=True, slots=True)
class Entries:
    """How often each answer was asked for and given, by its key."""

    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)


def read_journal(lines: Iterable[str]) -> Entries:
    """Count the events of a journal. A last line that was cut by a kill is left out."""
    entries = Entries()
    for line in lines:
        try:
            event, key = json.loads(line)
        except ValueError:
            continue
        (entries.asked if event == ASKED else entries.answered)[key] += 1
    return entries
