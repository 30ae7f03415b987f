"""Whether LoadGen's accuracy log holds what it must: LoadGen writes it without looking, also on a full disk.

An accuracy run without its log is worth nothing, and a log that lacks answers scores as if they were wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lbrun.redaction import Redactor
from lbrun.results.wording import things


class _Entry(msgspec.Struct, gc=False):
    """One answer. data, token_data: bytes in hexadecimal, of the whole answer and of its first token."""

    qsl_idx: int
    data: str
    token_data: str | None = None
    token_count: int | None = None


class _Cut(Exception):
    """The log breaks off or has something else in it; the message says where."""


_decode = msgspec.json.Decoder(_Entry).decode
_HEX_PER_TOKEN = 8


def check_accuracy_log(
    path: Path,
    *,
    token_ids: bool,
    samples: int | None = None,
    counted: bool = True,
    first_tokens: bool = False,
) -> list[str]:
    """What is wrong with an accuracy log, in words; nothing for one that is whole.

    token_ids: its answers are int32 token ids, else text. samples: each of so many answers must be there, of
    a different sample each (accuracy mode); None: LoadGen chose which ones to log (a compliance test), and
    there must be some. counted: there are as many ids as the server counted; of text that was encoded again
    there may be more, fewer or none. first_tokens: where first tokens are logged, answers must begin with
    them (TEST06).
    """
    n = without_data = other_count = other_start = 0
    seen: set[int] = set()
    try:
        for entry in _entries(path):
            n += 1
            seen.add(entry.qsl_idx)
            if token_ids and counted:
                without_data += not entry.data
                n_tokens = entry.token_count
                other_count += n_tokens is not None and len(entry.data) != n_tokens * _HEX_PER_TOKEN
            first = entry.token_data
            if first_tokens and first is not None:
                other_start += not (first and entry.data.startswith(first))
    except (OSError, _Cut) as error:
        return [f"{path.name} is incomplete after {things(n, 'answer')}: {error}; is the disk full?"]
    problems = []
    if samples is not None and n != samples:
        problems.append(f"{path.name} has {things(n, 'answer')} for {things(samples, 'sample')}")
    elif samples is not None and len(seen) != n:
        problems.append(f"{path.name} has several answers of {things(n - len(seen), 'sample')}")
    elif not n:
        problems.append(f"{path.name} has no answers")
    if without_data:
        problems.append(f"{path.name} has {things(without_data, 'answer')} without token ids")
    elif other_count:
        problems.append(f"{path.name} has {things(other_count, 'answer')} of another length than counted")
    if other_start:
        problems.append(
            f"{path.name} has {things(other_start, 'answer')} not beginning with the first token: "
            "begun again at another server, or encoded again from text"
        )
    return problems


def secrets_in_answers(folder: Path, redactor: Redactor) -> list[str]:
    """A line for each accuracy log with an answer that holds a secret. The log stays as LoadGen wrote it."""
    found = []
    for path in sorted(folder.glob("mlperf_log_accuracy*")):
        with contextlib.suppress(OSError), path.open("rb") as lines:
            header = next(filter(None, map(redactor.holds_in_hex, lines)), None)
            if header is not None:
                found.append(
                    f"mlperf/{path.name} holds the secret value of the header {header}, since a server "
                    "answered with it: do not pass that file on, and change the secret"
                )
    return found


def _entries(path: Path) -> Iterator[_Entry]:
    """The entries of the log's array, of which each has a line. Raises _Cut where it is not whole."""
    with path.open("rb") as lines:
        if lines.readline().strip() != b"[":
            raise _Cut("it does not begin")
        for number, line in enumerate(lines, 2):
            text = line.strip()
            if text == b"]":
                return
            try:
                yield _decode(text.removesuffix(b","))
            except (msgspec.MsgspecError, ValueError):
                raise _Cut(f"line {number} is cut or no answer") from None
    raise _Cut("it has no end")
