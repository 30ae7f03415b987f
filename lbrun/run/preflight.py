"""One short request to each ready server before the test: what cannot be counted or is refused shows here.

A run of hours must not find at its end that the servers never said how many tokens they made. The request has
the form of the test's own, with at most a few output tokens; it is no sample of the test.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind, Worker
from lbrun.errors import RunFailed

log = logging.getLogger("lbrun.run")

_LASTING = frozenset(
    {
        FailureKind.HTTP_4XX,
        FailureKind.NO_TOKEN_COUNT,
        FailureKind.MALFORMED,
        FailureKind.NO_END_MARK,
        FailureKind.EMPTY_ANSWER,
    }
)
"""Failures that more requests do not mend; all others are left to the pool's health."""


class Finding(NamedTuple):
    """A server that cannot serve this run, and why."""

    server: int
    reason: str


class _Collector:
    """Takes one report per server; the attempt's id is the server's index."""

    def __init__(self, n: int) -> None:
        self.failures: dict[int, AttemptFailure] = {}
        self.good: set[int] = set()
        self.done = asyncio.Event()
        self._left = n

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """Not of interest here."""

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """A usable answer."""
        self.good.add(attempt_id)
        self._count()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """None."""
        self.failures[attempt_id] = failure
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


async def check_answers(
    worker: Worker, servers: Sequence[int], urls: Sequence[str], timeout_s: float
) -> list[Finding]:
    """Ask each of the servers once; the worker's only body is the request.

    Returns the servers that should not take part. Raises RunFailed when none of them can.
    A server that does not answer in time, or fails in a way that may pass, is left to the pool's health.
    """
    collector = _Collector(len(servers))
    worker.start(collector)
    try:
        for server in servers:
            worker.submit(server, 0, server)
        worker.flush()
        async with asyncio.timeout(timeout_s):
            await collector.done.wait()
    except TimeoutError:
        log.warning("%d servers took longer than %g s for the first short request",
                    len(servers) - len(collector.good) - len(collector.failures), timeout_s)  # fmt: skip
    finally:
        await worker.close()
    for server, failure in collector.failures.items():
        log.warning("%s: the first request failed: %s", urls[server], failure.message)
    findings = [
        Finding(server, failure.message)
        for server, failure in sorted(collector.failures.items())
        if failure.kind in _LASTING
    ]
    if findings and len(findings) == len(servers):
        said = "\n".join(f"  {urls[finding.server]}: {finding.reason}" for finding in findings)
        raise RunFailed(f"No server can serve this run; the first request to each failed:\n{said}")
    return findings
