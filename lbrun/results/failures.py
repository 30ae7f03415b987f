"""What went wrong, gathered: many samples fail for few reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from lbrun.results.wording import clean, count

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Attempts that failed at one server in one way.

    kind: name of a ``FailureKind``. message: of the first of them. samples_lost: how many of them were
    the last attempt of a sample that failed.
    """

    server: str
    kind: str
    message: str
    attempts: int
    samples_lost: int

    def __str__(self) -> str:
        lost = f", {count(self.samples_lost)} of them a sample's last" if self.samples_lost else ""
        return f"{self.server or 'no server'}: {count(self.attempts)} x {self.kind}{lost}: {self.message}"


def group_failures(requests: Any) -> tuple[FailureGroup, ...]:
    """The failed attempts of a table of records, grouped; those that cost samples first, then by number.

    Messages that differ only in numbers (ports, times, lengths) belong together.
    """
    attempts: Counter[tuple[str, str, str]] = Counter()
    lost: Counter[tuple[str, str, str]] = Counter()
    messages: dict[tuple[str, str, str], str] = {}
    for server, kind, message, is_last in _failed_attempts(requests):
        text = clean(message, 200)
        group = (server, kind, _DIGITS.sub("#", text))
        messages.setdefault(group, text)
        attempts[group] += 1
        lost[group] += is_last
    groups = [
        FailureGroup(
            server=group[0],
            kind=group[1],
            message=messages[group],
            attempts=attempts[group],
            samples_lost=lost[group],
        )
        for group in attempts
    ]
    return tuple(sorted(groups, key=lambda group: (-group.samples_lost, -group.attempts)))


def _failed_attempts(requests: Any) -> Iterator[tuple[str, str, str, bool]]:
    """server, kind, message, and whether a sample was lost with it."""
    failed = pc.is_valid(requests.column("failure"))
    interesting = requests.filter(pc.or_(failed, pc.is_valid(requests.column("attempts"))))
    for batch in interesting.select(["server", "failure", "attempts"]).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            tries = [attempt for attempt in row["attempts"] or () if attempt["failure"]]
            for attempt in tries:
                is_last = bool(row["failure"]) and attempt is tries[-1]
                yield attempt["server"] or "", attempt["failure"], attempt["message"] or "", is_last
            if row["failure"] and not tries:
                yield row["server"] or "", row["failure"], "", True
