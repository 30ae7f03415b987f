"""What the test's process tells its parent of the samples and the servers: while it runs, and in the end."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from lbrun.balance import Pool
from lbrun.balance.identity import disagreements, notes
from lbrun.balance.model_watch import ModelWatch
from lbrun.dispatch.completions import Counts
from lbrun.dispatch.dispatcher import Dispatcher
from lbrun.run.channel import Message


def progress_of(dispatcher: Dispatcher, pool: Pool, total: int) -> Message:
    """How far the test is. total: samples that LoadGen is expected to issue at least."""
    counts = dispatcher.counts
    return {
        "type": "progress",
        "t_ns": time.monotonic_ns(),
        "issued": counts.issued,
        "done": counts.completed + counts.failed,
        "total": max(total, counts.issued),
        "failed": counts.failed,
        "retried": counts.retried,
        "in_flight": dispatcher.in_flight,
        "output_tokens": counts.output_tokens,
        "servers": _rows(pool),
    }


def unbalanced(counts: Counts, pool: Pool) -> list[str]:
    """Where the books of a test that is over do not balance; nothing, unless lbrun has a defect."""
    problems = []
    if counts.issued != counts.completed + counts.failed:
        problems.append(
            f"{counts.issued} samples issued, but {counts.completed} completed and {counts.failed} failed"
        )
    left = {url: n for url, n in zip(pool.urls, pool.in_flight, strict=True) if n}
    if left:
        problems.append(f"attempts still counted as in flight at the end: {left}")
    return problems


def outcome_of(dispatcher: Dispatcher, pool: Pool, problems: Sequence[str]) -> dict[str, Any]:
    """What became of the samples and the servers. problems: what makes the test worth nothing."""
    counts = dispatcher.counts
    errors = sorted(dispatcher.errors.items(), key=lambda item: -item[1])
    return {
        "samples": {"issued": counts.issued, "completed": counts.completed, "failed": counts.failed},
        "attempts": {
            "total": counts.attempts,
            "retried": counts.retried,
            "restarted_streams": counts.restarted_streams,
            "late": counts.late,
        },
        "servers": _rows(pool),
        "failures": [{"reason": reason, "count": n} for reason, n in errors],
        "given_up": [line for line in dispatcher.given_up if line not in problems],
        "problems": list(problems),
    }


def models_of(
    models: ModelWatch | None, urls: Sequence[str], unread: Collection[int], start_ns: int
) -> dict[str, Any]:
    """What the servers told of their models, and which answers are in doubt. Times as in the records.

    unread: servers that did not tell at the end.
    """
    if models is None:
        return {}

    def ns(at_s: float) -> int:
        return max(0, int(at_s * 1e9) - start_ns)

    return {
        "told": {urls[server]: dict(info.facts) for server, info in models.known.items() if info.facts},
        "differ": disagreements(models.known, urls),
        "notes": notes(models.known, urls),
        "changes": [
            {
                "server": urls[change.server],
                "what": change.what,
                "since_ns": ns(change.since_s),
                "found_ns": ns(change.found_s),
            }
            for change in models.changes
        ],
        "differed_once": [{"server": urls[s], "what": what} for s, what in models.differed_once()],
        "unverified": [{"server": urls[s], "since_ns": ns(at_s)} for s, at_s in models.unverified(unread)],
    }


def _rows(pool: Pool) -> list[dict[str, Any]]:
    """The pool as the parent is told it: a plain dict a server."""
    return [server._asdict() for server in pool.snapshot().servers]
