"""How late a loop is, measured from outside of it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
import uvloop

from lbrun import loop_watch
from lbrun.loop_watch import LoopFigures, LoopWatch, figures

BLOCK_S = 0.06
Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def new_loop(request: pytest.FixtureRequest) -> Loop:
    return request.param  # type: ignore[no-any-return]


def _watched(new_loop: Loop, blocks: int, block_s: float = BLOCK_S) -> LoopFigures:
    """A loop that something blocks so often; between that it rests a moment."""

    async def body() -> LoopFigures:
        watch = LoopWatch()
        before = list(watch.cells)
        watch.start()
        for _ in range(blocks):
            await asyncio.sleep(0.001)
            time.sleep(block_s)  # noqa: ASYNC251 - the loop shall be blocked
        watch.stop()
        return figures("main", list(watch.cells), before)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(body())


def test_a_loop_that_is_blocked_is_late_by_as_much(new_loop: Loop) -> None:
    seen = _watched(new_loop, 12)
    assert seen.lag_ms is not None
    # moments spread evenly over 60 ms of every 61: the median is late by 30 ms
    assert seen.lag_ms["p50"] > 15
    assert seen.lag_ms["max"] > 30
    assert seen.busy < 0.5


def test_one_long_block_counts_for_all_moments_in_it(new_loop: Loop) -> None:
    seen = _watched(new_loop, 1, 1.0)
    assert seen.lag_ms is not None
    assert seen.lag_ms["p50"] > 300


def test_work_counts_as_busy(new_loop: Loop) -> None:
    async def body() -> LoopFigures:
        watch = LoopWatch()
        before = list(watch.cells)
        watch.start()
        end_s = time.thread_time() + 0.2
        while time.thread_time() < end_s:
            await asyncio.sleep(0)
        watch.stop()
        return figures("main", list(watch.cells), before)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        seen = runner.run(body())
    # on a machine where others have the processor, the thread waits for it; where the kernel does not
    # tell that, less than all of the time is accounted for
    assert 0.1 < seen.busy <= 1.01
    assert seen.waiting >= 0


def test_bytes_wait_as_long_as_the_watch_says() -> None:
    """A socket's byte that arrives at a random moment, and the watch's own, have the same delay."""
    waits: list[float] = []

    async def body() -> LoopFigures:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        watch = LoopWatch()
        before = list(watch.cells)
        watch.start()
        sent_at: list[float] = []

        def read() -> None:
            ours.recv(64)
            now_s = time.monotonic()
            waits.extend(1000 * (now_s - at_s) for at_s in sent_at)
            sent_at.clear()

        loop.add_reader(ours, read)

        def block() -> None:
            for _ in range(6):  # bytes arrive every 10 ms while the loop is blocked
                time.sleep(0.01)
                sent_at.append(time.monotonic())
                theirs.send(b"x")

        for _ in range(12):
            block()
            await asyncio.sleep(0.001)
        watch.stop()
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        return figures("main", list(watch.cells), before)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(body())
    assert seen.lag_ms is not None
    median_ms = sorted(waits)[len(waits) // 2]
    assert 0.5 * median_ms < seen.lag_ms["p50"] < 2 * median_ms + 10


def test_the_figures_of_a_process_that_was_replaced_stay() -> None:
    async def body(cells: memoryview) -> None:
        watch = LoopWatch(cells)
        watch.start()
        await asyncio.sleep(0.08)
        watch.stop()

    cells = memoryview(bytearray(8 * loop_watch.N_CELLS)).cast("q")
    asyncio.run(body(cells))
    first = list(cells)
    asyncio.run(body(cells))
    assert cells[0] > first[0] > 50_000_000
    assert sum(cells[3:-1]) > sum(first[3:-1]) > 0


def test_a_system_without_such_timers_is_watched_by_the_loops_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watch, "_timerfd", lambda: -1)
    seen = _watched(uvloop.new_event_loop, 8)
    assert seen.lag_ms is not None
    assert seen.lag_ms["p50"] > 15
