"""Compares what lbrun recorded with what the servers wrote down themselves, and with LoadGen's accuracy log.

The servers' journals and the right answers are computed without lbrun's transport and request formats, so
that an error in those cannot hide itself.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lbrun.embedded.journal import Entries, answer_key
from lbrun.faults.evidence import Evidence

_BYTES_PER_ID = 4


def audit(evidence: Evidence) -> Iterator[str]:
    """Every disagreement between the records and the other books, in words."""
    if not evidence.rows or "config" not in evidence.result:
        return
    if evidence.journals:
        yield from _credited_answers(evidence)
        yield from _unrecorded_requests(evidence)
    yield from _sums(evidence)
    yield from _accuracy_log(evidence)


def _keys(evidence: Evidence) -> list[str]:
    """The journal's key of each sample."""
    return [answer_key(answer.ids) for answer in evidence.right_answers]


def _by_url(evidence: Evidence) -> dict[str, Entries]:
    return dict(zip(evidence.urls, evidence.journals, strict=True))


def _credited_answers(evidence: Evidence) -> Iterator[str]:
    """Samples that are credited to a server which never sent their answer, or not so often."""
    keys, journals = _keys(evidence), _by_url(evidence)
    credited = Counter(
        (row["server"], keys[row["sample_index"]]) for row in evidence.rows if row["failure"] is None
    )
    for (url, key), n in credited.items():
        given = journals[url].answered[key]
        if n > given:
            yield f"{url}: {n} samples credited with answer {key}, which it gave {given} times"


def _unrecorded_requests(evidence: Evidence) -> Iterator[str]:
    """Requests that a server received and that no record shows.

    The result of a run that was broken off, interrupted or killed does not show each attempt: not judged.
    """
    if evidence.result.get("state") != "finished" or evidence.result["errors"]:
        return
    keys = _keys(evidence)
    sent: Counter[tuple[str, str]] = Counter()
    for row in evidence.rows:
        key = keys[row["sample_index"]]
        for attempt in row["attempts"] or [row]:
            sent[attempt["server"], key] += 1
    for url, journal in _by_url(evidence).items():
        for key in set(keys):
            received, recorded = journal.asked[key], sent[url, key]
            if received > recorded:
                yield f"{url}: received {received} requests for answer {key}, {recorded} are recorded"


def _sums(evidence: Evidence) -> Iterator[str]:
    """Figures of result.json that are not the sums of the records."""
    result = evidence.result
    if result.get("state") != "finished":
        return
    good = [row for row in evidence.rows if row["failure"] is None]
    metrics: dict[str, Any] = result.get("metrics") or {}
    for name, column in (("output_tokens", "n_tokens"), ("input_tokens", "n_input_tokens")):
        total = sum(row[column] or 0 for row in good)
        if metrics.get(name) is not None and metrics[name] != total:
            yield f"metrics.{name} is {metrics[name]}, the records add up to {total}"
    completed = Counter(row["server"] for row in good)
    for server in result.get("servers", ()):
        if server["completed"] != completed[server["url"]]:
            url, n = server["url"], server["completed"]
            yield f"{url}: {n} samples completed by result.json, {completed[url]} by the records"


def _accuracy_log(evidence: Evidence) -> Iterator[str]:
    """Entries of LoadGen's accuracy log that are not the right answer to their sample."""
    entries = evidence.accuracy_log
    if entries is None or evidence.result["config"]["model"]["payload"] != "token_ids":
        return
    failed = {row["sample_index"] for row in evidence.rows if row["failure"] is not None}
    for index, n in Counter(entry["qsl_idx"] for entry in entries).items():
        if n > 1:
            yield f"the accuracy log has {n} entries for sample {index}"
    for entry in entries:
        index, data = entry["qsl_idx"], bytes.fromhex(entry["data"])
        ids = list(struct.unpack(f"<{len(data) // _BYTES_PER_ID}i", data))
        wanted = list(evidence.right_answers[index].ids)
        if index in failed:
            if ids:
                yield f"the accuracy log has {len(ids)} token ids for failed sample {index}"
        elif ids != wanted:
            yield f"the accuracy log has another answer for sample {index}"
        elif entry.get("token_count", len(ids)) != len(ids):
            yield f"the accuracy log counts {entry['token_count']} of {len(ids)} token ids, sample {index}"
    if evidence.result.get("state") == "finished":
        missing = {row["sample_index"] for row in evidence.rows} - {e["qsl_idx"] for e in entries}
        if missing:
            yield f"the accuracy log lacks {len(missing)} samples"
