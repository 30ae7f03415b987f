"""Worker processes do what the inline worker does: real processes, real sockets, scripted servers."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Sequence

import pytest
from workers_bench import (
    BOUND_S,
    STREAM_HEAD,
    Bench,
    Exchange,
    Sink,
    bench,
    completion,
    encode,
    events,
    hang,
    http,
    inline_worker,
    options,
    run,
    serve_well,
    stream_end,
    timeless,
    token,
    until,
    when,
)

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind
from lbrun.formats import FormatOptions
from lbrun.formats.options import PayloadKind
from lbrun.transport import Timeouts
from lbrun.workers import wire

Outcomes = dict[int, AttemptResult | AttemptFailure]


async def good_and_bad(exchange: Exchange) -> None:
    """Seven good answers and eight bad ones, by sample."""
    case = exchange.sample % 15
    if case == 7:
        await exchange.say(http(400, b'{"error": {"message": "too long \\u00e9"}}'))
    elif case == 8:
        await exchange.say(http(429, b"", Retry_After="2"))
    elif case == 9:
        await exchange.say(http(503, b"busy"))
    elif case == 10:
        await exchange.say(http(200, b"{}"))
    elif case == 11:
        await exchange.say(http(200, completion(exchange.sample, n_tokens=0)))
    elif case == 12:
        await exchange.say(STREAM_HEAD if exchange.stream else http(200, completion(1))[:-5])
        exchange.reset()
    elif case == 13:
        await exchange.say(b"no HTTP at all\r\n\r\n")
    elif case == 14 and exchange.stream:
        await exchange.say(STREAM_HEAD + events(token(exchange.sample)) + b"0\r\n\r\n")
    else:
        await exchange.answer()


async def inline(bench: Bench, format_options: FormatOptions, samples: Sequence[int]) -> Sink:
    """What the inline worker makes of the same attempts at the same servers."""
    worker, sink = (
        inline_worker([s.url for s in bench.servers], format_options, encode(format_options, 300)),
        Sink(),
    )
    worker.start(sink)
    for attempt_id, sample in enumerate(samples):
        worker.submit(attempt_id, sample, 0)
    await sink.heard_of(*range(len(samples)))
    await worker.close()
    return sink


def comparable(outcomes: Outcomes) -> Outcomes:
    """Without times; which connections are used again is up to each worker."""
    return {
        i: timeless(o._replace(reused=False) if isinstance(o, AttemptFailure) else o)
        for i, o in outcomes.items()
    }


@pytest.mark.parametrize(
    ("stream", "payload"), [(False, "none"), (False, "token_ids"), (True, "none"), (True, "token_ids")]
)
def test_every_result_is_the_inline_workers(stream: bool, payload: PayloadKind) -> None:
    """Good answers and each kind of bad one, streamed and whole, with and without payloads."""

    async def main() -> None:
        format_options = options(stream=stream, payload=payload)
        async with bench(good_and_bad, format_options=format_options) as b:
            samples = range(60)
            await b.serve(*samples)
            expected = await inline(b, format_options, samples)
            assert comparable(b.sink.outcomes) == comparable(expected.outcomes)
            told = {i: said for i, (_, said) in b.sink.first_tokens.items()}
            assert told == {i: said for i, (_, said) in expected.first_tokens.items()}
            kinds = b.sink.kinds(*samples)
            assert len(set(kinds)) >= 6, "the script has no longer all its cases"
            assert bool(told) == stream
            good = [b.sink.outcomes[i] for i, kind in enumerate(kinds) if kind is None]
            assert all((o.answer.payload is None) == (payload == "none") for o in good)  # type: ignore[union-attr]

    run(main())


def test_times_are_of_one_clock_and_in_order() -> None:
    async def main() -> None:
        async with bench(format_options=options(stream=True)) as b:
            before_ns = asyncio.get_running_loop().time() * 1e9
            outcomes = await b.serve(*range(8))
            after_ns = asyncio.get_running_loop().time() * 1e9
            for outcome in outcomes:
                assert isinstance(outcome, AttemptResult)
                times = [outcome.sent_ns, outcome.first_byte_ns, outcome.first_token_ns, outcome.done_ns]
                assert [before_ns - 1e6, *times, after_ns + 1e6] == sorted(
                    [before_ns - 1e6, *times, after_ns + 1e6]
                )
            for attempt_id, (at_ns, _) in b.sink.first_tokens.items():
                assert at_ns == outcomes[attempt_id].first_token_ns

    run(main())


def test_the_first_token_is_told_while_the_stream_goes_on() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def in_two_parts(exchange: Exchange) -> None:
            await exchange.say(STREAM_HEAD + events(token(exchange.sample)))
            await go_on.wait()
            await exchange.say(stream_end(exchange.sample))

        async with bench(in_two_parts, format_options=options(stream=True)) as b:
            ids = b.submit(*range(6))
            await until(lambda: set(b.sink.first_tokens) == set(ids), "all first tokens")
            assert b.sink.outcomes == {}
            go_on.set()
            await b.sink.heard_of(*ids)
            assert b.sink.kinds(*ids) == [None] * 6

    run(main())


def test_what_a_server_calls_the_end_of_an_answer_comes_through_but_not_without_bounds() -> None:
    """Each process tells a word once; a server that makes up one for each answer does not fill memory."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(http(200, completion(exchange.sample, finish_reason=f"reason {exchange.sample}")))

    async def main() -> None:
        async with bench(script, n=1) as b:
            for _ in range(2):
                outcomes = await b.serve(*range(wire.MAX_WORDS))
                reasons = [o.answer.finish_reason for o in outcomes if isinstance(o, AttemptResult)]
                assert reasons == [f"reason {i}" for i in range(wire.MAX_WORDS)]
            for beyond in await b.serve(wire.MAX_WORDS, wire.MAX_WORDS + 1):
                assert isinstance(beyond, AttemptResult)
                assert beyond.answer.finish_reason == wire.OTHER_WORD

    run(main())


def test_a_count_that_no_record_can_hold_is_a_bad_answer() -> None:
    """The attempt still ends: a server must not be able to hang a run."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(http(200, completion(exchange.sample, n_tokens=2**63)))

    async def main() -> None:
        async with bench(script, n=1) as b:
            (outcome,) = await b.serve(3)
            assert isinstance(outcome, AttemptFailure)
            assert outcome.kind is FailureKind.IMPLAUSIBLE
            assert str(2**63) in outcome.message
            assert outcome.sent
            assert outcome.any_byte

    run(main())


# ---- cancel and evict


def test_a_cancelled_attempt_is_not_told_and_its_connection_is_closed() -> None:
    async def main() -> None:
        async with bench(hang, serve_well) as b:
            dropped = b.submit(0, 1, 2)
            await b.reached(3)
            for attempt_id in dropped[:2]:
                b.workers.cancel(attempt_id)
            await until(lambda: b.servers[0].n_open == 1, "two connections close")
            b.workers.cancel(dropped[2])
            await until(lambda: b.servers[0].n_open == 0, "the third connection closes")
            await b.serve(*range(4), server=1)
            assert not set(dropped) & set(b.sink.outcomes)
            b.workers.cancel(dropped[0])  # once more, and of one that has ended
            b.workers.cancel(min(b.sink.outcomes))

    run(main())


def test_an_attempt_that_is_cancelled_before_it_was_handed_over_is_not_told() -> None:
    async def main() -> None:
        async with bench() as b:
            b.workers.submit(1000, 0, 0)
            b.workers.cancel(1000)
            b.workers.flush()
            await b.serve(*range(6))
            assert 1000 not in b.sink.outcomes

    run(main())


def test_an_attempt_is_not_told_once_cancelled_though_its_result_is_on_its_way() -> None:
    async def main() -> None:
        held: list[Exchange] = []

        async def hold(exchange: Exchange) -> None:
            held.append(exchange)
            await hang(exchange)

        async with bench(hold, serve_well, n=1) as b:
            (attempt_id,) = b.submit(1)
            await until(lambda: held, "the request")
            # from here to the cancel the loop is not given a turn: what the worker says stays in the socket
            held[0].answer_at_once()
            assert select.select([_socket_of(b)], [], [], BOUND_S)[0], "no report has come"
            b.workers.cancel(attempt_id)
            await b.serve(2, server=1)
            assert attempt_id not in b.sink.outcomes

    run(main())


def _socket_of(b: Bench) -> socket.socket:
    (line,) = b.workers._lines
    assert line.transport is not None
    sock: socket.socket = line.transport.get_extra_info("socket")
    return sock


def test_evicted_is_what_has_no_byte_at_that_server() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def only_even_ones_begin(exchange: Exchange) -> None:
            if exchange.sample % 2:
                await hang(exchange)
            await exchange.say(STREAM_HEAD + events(token(exchange.sample)))
            await go_on.wait()
            await exchange.say(stream_end(exchange.sample))

        async with bench(only_even_ones_begin, when(go_on), format_options=options(stream=True)) as b:
            elsewhere = b.submit(*range(4), server=1)
            ids = b.submit(0, 0, 1, 1, 2, 2, 3, 3)
            begun, waiting = [ids[i] for i in (0, 1, 4, 5)], [ids[i] for i in (2, 3, 6, 7)]
            await b.reached(8)
            await until(
                lambda: set(b.sink.first_tokens) == set(begun), "the first tokens of those that begin"
            )
            b.workers.submit(1000, 1, 0)  # not handed over yet
            b.workers.evict(0)
            await b.sink.heard_of(*waiting, 1000)
            assert set(b.sink.outcomes) == {*waiting, 1000}
            assert set(b.sink.kinds(*waiting, 1000)) == {FailureKind.EVICTED}
            (later,) = b.submit(2)  # the server may be asked again
            go_on.set()
            await b.sink.heard_of(*begun, *elsewhere, later)
            assert set(b.sink.kinds(*begun, *elsewhere, later)) == {None}

    run(main())


def test_a_fresh_attempt_gets_a_connection_of_its_own() -> None:
    async def main() -> None:
        async with bench(n=1) as b:
            await b.serve(0)
            await b.serve(1)
            assert b.servers[0].n_connections == 1
            await b.sink.heard_of(*b.submit(2, fresh=True))
            assert b.servers[0].n_connections == 2

    run(main())


def test_the_last_byte_is_known_by_server_over_all_processes() -> None:
    async def main() -> None:
        async with bench(serve_well, hang, n=2) as b:
            assert [b.workers.last_byte_ns(server) for server in (0, 1)] == [0, 0]
            b.submit(0, 1, server=1)
            for _ in range(3):  # each time another process
                (outcome,) = await b.serve(0)
                assert isinstance(outcome, AttemptResult)
                done_ns = outcome.done_ns
                await until(lambda at=done_ns: b.workers.last_byte_ns(0) >= at, "the byte is known of")
            assert b.workers.last_byte_ns(1) == 0

    run(main())


# ---- who does what


def connections_of(b: Bench) -> list[int]:
    """How many connections each process has to the servers."""
    ports = {server.port for server in b.servers}
    return [
        sum(1 for c in process.net_connections("tcp") if c.raddr and c.raddr.port in ports)
        for process in b.processes()
    ]


def test_attempts_are_shared_out_evenly() -> None:
    async def main() -> None:
        async with bench(hang, n=3) as b:
            b.submit(*range(12))
            await b.reached(12)
            assert connections_of(b) == [4, 4, 4]

    run(main())


@pytest.mark.parametrize(("n_workers", "n_servers"), [(3, 1), (2, 5)])
def test_processes_and_servers_need_not_be_as_many(n_workers: int, n_servers: int) -> None:
    async def main() -> None:
        async with bench(*[serve_well] * n_servers, n=n_workers) as b:
            ids = [i for server in range(n_servers) for i in b.submit(*range(10), server=server)]
            await b.sink.heard_of(*ids)
            assert set(b.sink.kinds(*ids)) == {None}
            for server in b.servers:
                assert sorted(server.samples) == list(range(10))

    run(main())


def test_a_timeout_of_an_attempt_is_the_setups() -> None:
    async def main() -> None:
        async with bench(hang, n=1, timeouts=Timeouts(first_byte_s=0.1)) as b:
            (outcome,) = await b.serve(0)
            assert isinstance(outcome, AttemptFailure)
            assert outcome.kind is FailureKind.FIRST_BYTE_TIMEOUT

    run(main())


def test_processes_are_pinned_in_turn_to_the_processors_they_are_given() -> None:
    usable = sorted(os.sched_getaffinity(0))
    given = (usable[-1], usable[0])

    async def main() -> None:
        async with bench(n=3, cpus=given) as b:
            await b.serve(0, 1, 2)
            assert [p.cpu_affinity() for p in b.processes()] == [[given[0]], [given[1]], [given[0]]]

    run(main())


def test_processes_are_pinned_to_nothing_unless_told() -> None:
    async def main() -> None:
        async with bench(n=1) as b:
            await b.serve(0)
            assert b.processes()[0].cpu_affinity() == sorted(os.sched_getaffinity(0))

    run(main())


# ---- what it costs


def memory_of(pid: int) -> dict[str, int]:
    """A process's memory in bytes, by kind, as ``smaps_rollup`` has it."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123 - a file of the kernel's
        for line in list(file)[1:]:
            name, size = line.split(":")
            found[name] = int(size.split()[0]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")
def test_bodies_are_in_memory_once_however_many_processes_send_them() -> None:
    mib, n_bodies = 1 << 20, 32

    async def main() -> None:
        bodies = encode(options(), n_bodies, filler=b"," + b" " * mib)
        async with bench(n=2, bodies=bodies) as b:
            await b.serve(0, 0)
            before = [memory_of(pid) for pid in b.workers.pids]
            for i in range(n_bodies):
                await b.serve(i, i)  # one each
            after = [memory_of(pid) for pid in b.workers.pids]
            for was, now in zip(before, after, strict=True):
                private = sum(now[key] - was[key] for key in ("Private_Clean", "Private_Dirty"))
                shared = sum(now[key] - was[key] for key in ("Shared_Clean", "Shared_Dirty"))
                assert shared > 0.9 * (n_bodies - 1) * mib
                assert private < 0.2 * n_bodies * mib

    run(main())


def test_memory_does_not_grow_with_what_was_done() -> None:
    async def main() -> None:
        async with bench(n=1) as b:
            (pid,) = b.workers.pids

            async def work(rounds: int) -> None:
                for _ in range(rounds):
                    await b.serve(*range(100))
                    b.sink.outcomes.clear()  # the test's own

            await work(10)
            before = memory_of(pid)["Anonymous"]
            await work(30)
            assert memory_of(pid)["Anonymous"] - before < 1 << 20
            (line,) = b.workers._lines
            assert not line.open
            assert sys.getsizeof(line.open) < 1 << 15

    run(main())


def test_processes_tell_what_they_have_cost_when_they_are_closed() -> None:
    async def main() -> None:
        async with bench(n=2) as b:
            await b.serve(*range(100))
            assert b.workers.reports() == []
            await b.workers.close()
            for report in b.workers.reports():
                assert report.cpu_s > 0
                assert 0 < report.busy <= 1
            assert len(b.workers.reports()) == 2

    run(main())
