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
        FailureKind.IMPLAUSIBLE,
        FailureKind.NO_END_MARK,
        FailureKind.EMPTY_ANSWER,
    }
)
"""Failures that more requests do not mend; all others are left to the pool's health. A server is asked once
more before they are held against it: what stands before it may have been in between two configurations."""
ASK_AGAIN_AFTER_S = 1.0


class Finding(NamedTuple):
    """A server that cannot serve this run, and why."""

    server: int
    reason: str


class _Collector:
    """Asks each server, and some once more. The attempts' ids are twice the server's index, and one more."""

    def __init__(self, worker: Worker, servers: Sequence[int]) -> None:
        self.failures: dict[int, AttemptFailure] = {}
        self.good: set[int] = set()
        self.done = asyncio.Event()
        self._worker, self._servers = worker, servers
        self._left = len(servers)

    def ask(self) -> None:
        """Send the requests."""
        for server in self._servers:
            self._worker.submit(2 * server, 0, server)
        self._worker.flush()

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        """Not of interest here."""

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        """A usable answer."""
        server = attempt_id // 2
        self.good.add(server)
        self.failures.pop(server, None)
        self._count()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        """None, or none yet."""
        server, is_second = divmod(attempt_id, 2)
        self.failures[server] = failure
        if failure.kind in _LASTING and not is_second:
            asyncio.get_running_loop().call_later(ASK_AGAIN_AFTER_S, self._ask_again, server)
        else:
            self._count()

    def _ask_again(self, server: int) -> None:
        if not self.done.is_set():
            self._worker.submit(2 * server + 1, 0, server)
            self._worker.flush()

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


async def check_answers(
    worker: Worker, servers: Sequence[int], urls: Sequence[str], timeout_s: float
) -> list[Finding]:
    """Ask each of the servers, those that refuse twice; the worker's only body is the request.

    Returns the servers that should not take part. Raises RunFailed when none of them can.
    A server that does not answer in time, or fails in a way that may pass, is left to the pool's health.
    """
    collector = _Collector(worker, servers)
    worker.start(collector)
    try:
        collector.ask()
        async with asyncio.timeout(timeout_s):
            await collector.done.wait()
    except TimeoutError:
        log.warning("%d servers took longer than %g s for the first short request",
                    len(servers) - len(collector.good) - len(collector.failures), timeout_s)  # fmt: skip
    finally:
        collector.done.set()
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
