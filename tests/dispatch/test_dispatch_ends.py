"""How a run is ended before its time, and what a defect of a strategy of the user's own does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from dispatch_bench import bench, run
from scripted_server import Exchange, always, first, refusal, serve_well, when

from lbrun.attempt import AttemptSink
from lbrun.balance import BaseStrategy
from lbrun.transport import InlineWorker


class DeafWorker:
    """Carries attempts out and ignores cancellations, as a worker does whose reports are on their way."""

    def __init__(self, worker: InlineWorker) -> None:
        self._worker = worker

    def start(self, sink: AttemptSink) -> None:
        self._worker.start(sink)

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        self._worker.submit(attempt_id, sample_index, server, fresh)

    def flush(self) -> None:
        self._worker.flush()

    def cancel(self, attempt_id: int) -> None:
        pass

    def evict(self, server: int) -> None:
        self._worker.evict(server)

    def last_byte_ns(self, server: int) -> int:
        return self._worker.last_byte_ns(server)

    async def close(self) -> None:
        await self._worker.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_that_come_after_the_end_are_dropped_and_counted(stream: bool) -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(when(released), when(released), stream=stream, wrap_worker=DeafWorker) as b:
            b.issue(*range(6))
            await b.until(lambda: sum(len(server.requests) for server in b.servers) == 6)
            b.dispatcher.break_off("enough")
            await b.resolved()
            released.set()
            await b.until(lambda: b.dispatcher.counts.late == 6)
            assert b.dispatcher.counts.failed == 6
            assert b.ledger.first_tokened == []

    run(main())


def test_failures_that_come_after_the_end_are_dropped_and_counted() -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(when(released, always(refusal(500))), wrap_worker=DeafWorker) as b:
            b.issue(0, 1)
            await b.until(lambda: len(b.servers[0].requests) == 2)
            b.dispatcher.break_off("enough")
            released.set()
            await b.until(lambda: b.dispatcher.counts.late == 2)
            assert b.dispatcher.counts.attempts == 2

    run(main())


def test_what_loadgen_issues_after_the_books_are_closed_is_in_none_of_them() -> None:
    async def main() -> None:
        async with bench(always(refusal(500))) as b:
            b.issue(0, 1)
            b.dispatcher.break_off("enough")
            await b.resolved()
            b.dispatcher.stop()
            b.dispatcher.issue([100, 101], [0, 1])
            taken = asyncio.Event()
            asyncio.get_running_loop().call_soon(taken.set)
            await taken.wait()
            assert (b.dispatcher.counts.issued, b.dispatcher.counts.failed) == (2, 2)
            assert len(b.ledger.finished) == 2

    run(main())


def test_a_hold_lets_what_is_in_flight_end_and_sends_nothing_more() -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(when(released), max_in_flight=4) as b:
            b.issue(*range(10))
            await b.until(lambda: len(b.servers[0].requests) == 4)
            b.dispatcher.hold()
            b.issue(10, 11)
            await b.until(lambda: len(b.ledger.finished) == 8)
            released.set()
            await b.resolved()
            assert (b.dispatcher.counts.completed, b.dispatcher.counts.failed) == (4, 8)
            assert sorted(b.servers[0].samples) == [0, 1, 2, 3]

    run(main())


def test_what_fails_during_a_hold_is_not_retried_and_resolved_in_the_end() -> None:
    released = asyncio.Event()

    async def main() -> None:
        async with bench(first(2, when(released, always(refusal(500)))), serve_well) as b:
            b.issue(*range(4))
            await b.until(lambda: len(b.ledger.finished) == 2)
            b.dispatcher.hold()
            released.set()
            await b.until(lambda: b.dispatcher.in_flight == 0)
            b.dispatcher.fail_open("interrupted while it was in flight")
            await b.resolved()
            assert b.dispatcher.counts.retried == 0
            assert b.dispatcher.counts.failed == 2

    run(main())


def test_max_in_flight_is_never_exceeded_and_holds_nobody_up() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await exchange.answer()

    async def main() -> None:
        async with bench(slow, serve_well, max_in_flight=3) as b:
            b.issue(*range(200))
            while len(b.ledger.finished) < 200:
                assert max(b.pool.in_flight) <= 3
                await asyncio.sleep(0)
            assert len(b.servers[1].requests) > len(b.servers[0].requests) > 0

    run(main())


class Broken(BaseStrategy):
    """A strategy of the user's own that works for a while."""

    name = "broken"

    def __init__(self, where: str, after: int) -> None:
        self.where, self.n_good = where, after

    def _perhaps(self, where: str) -> None:
        if where == self.where:
            self.n_good -= 1
            if self.n_good < 0:
                raise ZeroDivisionError("a defect of the strategy")

    def pick(self, tokens: int) -> int:
        self._perhaps("pick")
        return self.view.eligible[0]

    def pick_among(self, candidates: Sequence[int], tokens: int) -> int:
        self._perhaps("pick_among")
        return candidates[0] if self.where != "wrong" else 99

    def started(self, server: int, tokens: int) -> None:
        self._perhaps("started")

    def ended(self, server: int, tokens: int) -> None:
        self._perhaps("ended")

    def observed(self, server: int, ttft_s: float, now_s: float) -> None:
        self._perhaps("observed")

    def joined(self, server: int) -> None:
        self._perhaps("joined")

    def left(self, server: int) -> None:
        self._perhaps("left")


@pytest.mark.parametrize(
    "where", ["pick", "pick_among", "wrong", "started", "ended", "observed", "joined", "left"]
)
def test_a_strategy_that_breaks_ends_the_run_with_its_error_and_resolves_every_sample(where: str) -> None:
    async def main() -> None:
        often_bad = first(4, always(refusal(500)))
        strategy = Broken(where, after=3)
        async with bench(often_bad, often_bad, strategy=strategy, max_in_flight=4, defects=True) as b:
            b.issue(*range(30))
            await b.resolved()
            assert b.dispatcher.counts.failed > 0
            assert len(b.broken) == 1
            assert "strategy" in b.broken[0]

    run(main())


class FullDisk:
    """Keeps no answer."""

    def add(self, query_id: int, sample_index: int, payload: bytes | None) -> None:
        raise OSError("No space left on device")


def test_an_answer_that_cannot_be_kept_ends_the_run_and_its_sample_is_completed_once() -> None:
    async def main() -> None:
        async with bench(serve_well, outputs=FullDisk(), defects=True) as b:
            rows = await b.serve(*range(10))
            assert all(row.failure for row in rows)
            assert "No space left" in b.broken[0]

    run(main())
