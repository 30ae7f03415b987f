"""Processes that die, hang or cannot be started: each attempt is told of once, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from workers_bench import (
    STREAM_HEAD,
    Bench,
    Exchange,
    bench,
    descriptors,
    encode,
    events,
    hang,
    is_gone,
    options,
    run,
    serve_well,
    setup,
    token,
    until,
    when,
)

from lbrun.attempt import AttemptFailure, FailureKind
from lbrun.errors import RunFailed
from lbrun.workers import ProcessWorkers, SharedBodies
from lbrun.workers import pool as pool_module

DIED = FailureKind.WORKER_DIED


async def kill(b: Bench, index: int) -> None:
    """SIGKILL a worker's process, and wait until it is known of."""
    pid = b.workers.pids[index]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in b.workers.pids, "the death is noticed")


# ---- killed


def test_a_killed_workers_attempts_fail_once_and_another_process_takes_its_place() -> None:
    async def main() -> None:
        released = asyncio.Event()
        async with bench(when(released)) as b:
            ids = b.submit(*range(8))
            await b.reached(8)
            old = b.workers.pids
            await kill(b, 0)
            await until(lambda: len(b.sink.outcomes) >= 4, "half of the attempts end")
            dead = list(b.sink.outcomes)
            assert set(b.sink.kinds(*dead)) == {DIED}
            released.set()
            await b.sink.heard_of(*ids)
            assert sorted(map(str, b.sink.kinds(*ids))) == sorted(4 * ["None"] + 4 * [str(DIED)])
            failure = b.sink.outcomes[dead[0]]
            assert isinstance(failure, AttemptFailure)
            assert not failure.sent, "the server is not to be blamed"
            assert len(set(b.workers.pids) - set(old)) == 1
            again = b.submit(*range(8))
            await b.sink.heard_of(*again)
            assert b.sink.kinds(*again) == [None] * 8
            assert b.broken == []

    run(main())


def test_a_worker_that_dies_in_mid_stream_has_told_its_first_tokens() -> None:
    async def begin(exchange: Exchange) -> None:
        await exchange.say(STREAM_HEAD + events(token(exchange.sample)))
        await hang(exchange)

    async def main() -> None:
        async with bench(begin, n=1, format_options=options(stream=True)) as b:
            ids = b.submit(*range(3))
            await until(lambda: len(b.sink.first_tokens) == 3, "the first tokens")
            await kill(b, 0)
            await b.sink.heard_of(*ids)
            assert b.sink.kinds(*ids) == [DIED] * 3

    run(main())


def test_a_cancelled_attempt_of_a_worker_that_dies_is_not_told() -> None:
    async def main() -> None:
        async with bench(hang, n=1) as b:
            dropped, kept = b.submit(0, 1)
            b.workers.cancel(dropped)
            await kill(b, 0)
            await b.sink.heard_of(kept)
            assert dropped not in b.sink.outcomes

    run(main())


def test_a_worker_that_was_killed_before_it_was_connected_to_is_replaced() -> None:
    async def main() -> None:
        async with bench(start=False) as b:
            for pid in b.workers.pids:
                os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: is_gone(pid), "the process ends")
            b.workers.start(b.sink)
            ids = b.submit(*range(6))
            await b.sink.heard_of(*ids)
            assert b.sink.kinds(*ids) == [DIED] * 6
            again = b.submit(*range(6))
            await b.sink.heard_of(*again)
            assert b.sink.kinds(*again) == [None] * 6
            assert b.broken == []

    run(main())


def test_a_worker_that_dies_twice_breaks_the_run_with_the_reason() -> None:
    async def main() -> None:
        async with bench(hang, serve_well) as b:
            first = b.submit(*range(2))
            await kill(b, 0)
            second = b.submit(*range(2))
            await kill(b, 0)
            await until(lambda: b.broken, "the run is broken")
            assert b.broken == ["worker process 0 ended by SIGKILL; it had been started again before"]
            # who is left works on; what becomes of the run is not for this part to say
            for outcome in await b.serve(*range(4), server=1):
                assert not isinstance(outcome, AttemptFailure)
            assert sum(i in b.sink.outcomes for i in first) == 1
            assert sum(i in b.sink.outcomes for i in second) == 1

    run(main())


def test_with_no_process_left_every_attempt_fails_and_none_hangs() -> None:
    async def main() -> None:
        async with bench(hang, n=1) as b:
            await kill(b, 0)
            before = b.submit(*range(3))
            await kill(b, 0)
            between = b.submit(*range(3))  # the reason is not known yet
            dropped = b.submit(7)
            b.workers.cancel(*dropped)
            b.workers.evict(0)
            await until(lambda: b.broken, "the run is broken")
            after = b.submit(*range(3))
            await b.sink.heard_of(*before, *between, *after)
            assert set(b.sink.kinds(*before, *between, *after)) == {DIED}
            assert dropped[0] not in b.sink.outcomes
            assert len(b.broken) == 1

    run(main())


def test_a_server_that_dies_while_work_for_it_is_in_the_pipe_fails_each_of_its_attempts_once() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well) as b:
            await b.serve(*range(4))
            for pid in b.workers.pids:
                os.kill(pid, signal.SIGSTOP)
            ids = b.submit(*range(40))
            elsewhere = b.submit(*range(40), server=1)
            b.servers[0].kill()
            for pid in b.workers.pids:
                os.kill(pid, signal.SIGCONT)
            await b.sink.heard_of(*ids, *elsewhere)
            assert None not in b.sink.kinds(*ids)
            assert DIED not in b.sink.kinds(*ids)
            assert set(b.sink.kinds(*elsewhere)) == {None}
            await b.servers[0].start()
            back = b.submit(*range(10))
            await b.sink.heard_of(*back)
            assert set(b.sink.kinds(*back)) == {None}

    run(main())


# ---- silent


def test_a_worker_that_is_silent_for_too_long_is_killed_and_replaced() -> None:
    async def main() -> None:
        async with bench(hang, serve_well, silence_s=0.5) as b:
            await b.serve(0, 1, server=1)  # both have started
            stopped = b.workers.pids[1]
            ids = b.submit(*range(4))
            await b.reached(4)
            os.kill(stopped, signal.SIGSTOP)
            await until(lambda: len(b.sink.outcomes) >= 4, "the silence is noticed")
            await until(lambda: is_gone(stopped), "its end is seen")
            assert [b.sink.outcomes[i] for i in ids if i in b.sink.outcomes]
            later = b.submit(*range(4), server=1)
            await b.sink.heard_of(*later)
            assert set(b.sink.kinds(*later)) == {None}
            assert b.broken == []

    run(main())


def test_the_reason_of_a_break_says_that_the_worker_was_silent() -> None:
    async def main() -> None:
        async with bench(serve_well, n=1, silence_s=0.3) as b:
            await b.serve(0)
            await kill(b, 0)
            await b.serve(0)
            os.kill(b.workers.pids[0], signal.SIGSTOP)
            await until(lambda: b.broken, "the run is broken")
            assert "silent for 0.3 s" in b.broken[0]

    run(main())


def test_a_worker_that_never_starts_up_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "START_S", 0.3)

    async def main() -> None:
        async with bench(n=1, silence_s=0.2, start=False) as b:
            (stopped,) = b.workers.pids
            os.kill(stopped, signal.SIGSTOP)
            # the next one has as long as it needs
            b.workers.start(b.sink)
            await until(lambda: b.workers.pids != [stopped], "another process takes its place")
            monkeypatch.setattr(pool_module, "START_S", 60.0)
            (outcome,) = await b.serve(0)
            assert not isinstance(outcome, AttemptFailure)

    run(main())


def test_nobody_is_judged_by_a_time_in_which_the_dispatcher_itself_was_held_up() -> None:
    """As after Ctrl-Z and fg, or on a machine that was asleep: all have been silent, and none hangs."""

    async def main() -> None:
        async with bench(silence_s=2.0) as b:
            await b.serve(*range(4))
            before = b.workers.pids
            for pid in before:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.2)  # noqa: ASYNC251 - the loop is to stand still
            await asyncio.sleep(0)  # the look that is overdue
            for pid in before:
                os.kill(pid, signal.SIGCONT)
            await b.serve(*range(4))
            assert b.workers.pids == before

    run(main())


# ---- what this machine cannot give


@contextmanager
def few_descriptors(n_free: int) -> Iterator[None]:
    """Leave only so many descriptors to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    for fd in taken[:n_free]:
        os.close(fd)
    try:
        yield
    finally:
        for fd in taken[n_free:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_processes_that_cannot_be_started_are_told_of_and_leave_nothing_behind() -> None:
    bodies = SharedBodies.store(encode(options(), 1))
    before = descriptors()
    # enough for the table, the launch, and some of the sockets
    with (
        few_descriptors(12),
        pytest.raises(RunFailed, match=r"of 40 worker processes could be started: .*Too many"),
    ):
        ProcessWorkers(40, setup(["http://127.0.0.1:9"], options()), bodies, on_broken=print)
    assert descriptors() == before
    bodies.close()


def test_a_process_that_cannot_be_replaced_breaks_the_run() -> None:
    async def main() -> None:
        async with bench(hang, n=1) as b:
            ids = b.submit(*range(3))
            await b.reached(3)
            with few_descriptors(0):
                os.kill(b.workers.pids[0], signal.SIGKILL)
                await until(lambda: b.broken, "the run is broken")
            assert "another could not be started" in b.broken[0]
            after = b.submit(*range(3))
            await b.sink.heard_of(*ids, *after)
            assert set(b.sink.kinds(*ids, *after)) == {DIED}

    run(main())


# ---- closing


def test_closing_takes_back_all_processes_and_descriptors() -> None:
    async def main() -> None:
        before = descriptors()
        async with bench(hang, serve_well) as b:
            await b.serve(*range(4), server=1)
            b.submit(*range(4))
            await kill(b, 0)
            pids = b.workers.pids
            await b.workers.close()
            await b.workers.close()
            assert all(map(is_gone, pids))
            told = dict(b.sink.outcomes)
        assert b.sink.outcomes == told
        await until(lambda: descriptors() == before, "all descriptors are closed")

    run(main())


def test_workers_that_were_never_started_can_be_closed() -> None:
    async def main() -> None:
        before = descriptors()
        async with bench(start=False) as b:
            pids = b.workers.pids
            await b.workers.close()
            assert all(map(is_gone, pids))
            assert b.workers.reports() == []
        await until(lambda: descriptors() == before, "all descriptors are closed")

    run(main())


def test_closing_does_not_wait_for_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_CLOSE_S", 0.3)

    async def main() -> None:
        before = descriptors()
        async with bench(n=2) as b:
            await b.serve(0, 1)
            pids = b.workers.pids
            os.kill(pids[0], signal.SIGSTOP)
            await b.workers.close()
            assert all(map(is_gone, pids))
            assert len(b.workers.reports()) == 1
        await until(lambda: descriptors() == before, "all descriptors are closed")

    run(main())


def test_a_worker_may_die_while_it_is_closed() -> None:
    async def main() -> None:
        async with bench(n=2) as b:
            await b.serve(0, 1)
            closing = asyncio.ensure_future(b.workers.close())
            for pid in b.workers.pids:
                os.kill(pid, signal.SIGKILL)
            await closing
            assert b.broken == []

    run(main())


def test_at_least_one_process_is_needed() -> None:
    bodies = SharedBodies.store([])
    with pytest.raises(ValueError, match="at least one"):
        ProcessWorkers(0, setup(["http://127.0.0.1:9"], options()), bodies, on_broken=print)
    bodies.close()
