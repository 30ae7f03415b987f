"""What becomes of a sample whose server answered, and answered badly."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from dispatch_bench import HEALTH, RETRY, bench, run
from scripted_server import (
    LAST_TOKEN,
    LOADING,
    MODELS,
    N_TOKENS,
    STREAM_HEAD,
    Exchange,
    Script,
    always,
    completion,
    first,
    http,
    only_for,
    refusal,
    serve_well,
    sse,
    stream_a_token,
    token,
    when,
)

from lbrun.attempt import FailureKind
from lbrun.balance import ServerState
from lbrun.transport import Timeouts

STOP = RETRY
CONTINUE = dataclasses.replace(RETRY, stop_on_bad_request=False)
LENIENT = dataclasses.replace(HEALTH, failures_in_a_row=10_000, window_min=10_000)
"""Nobody is ejected for what it answers."""


def then_close(data: bytes) -> Script:
    """Says so and ends the connection in order."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(data)
        await exchange.close()

    return script


WHOLE_FAULTS: dict[str, tuple[Script, FailureKind]] = {
    "500": (always(refusal(500)), FailureKind.HTTP_5XX),
    "502": (always(refusal(502)), FailureKind.HTTP_5XX),
    "504": (always(http(504)), FailureKind.HTTP_5XX),
    "no json": (always(http(200, b"<html>busy</html>")), FailureKind.MALFORMED),
    "no http": (then_close(b"SSH-2.0-OpenSSH_9.6\r\n"), FailureKind.MALFORMED),
    "other fields": (always(http(200, b'{"hello": 1}')), FailureKind.MALFORMED),
    "truncated json": (always(http(200, completion()[:-20])), FailureKind.MALFORMED),
    "error body": (
        always(http(200, b'{"error": {"message": "out of memory"}}')),
        FailureKind.ERROR_IN_ANSWER,
    ),
    "no tokens": (always(http(200, completion(0))), FailureKind.EMPTY_ANSWER),
    "announced longer": (
        then_close(http(200, completion()).replace(b"Content-Length: 1", b"Content-Length: 9")),
        FailureKind.CUT,
    ),
}
STREAM_FAULTS: dict[str, tuple[Script, FailureKind]] = {
    "500": (always(refusal(500)), FailureKind.HTTP_5XX),
    "no events": (always(http(200, b"hello")), FailureKind.NO_END_MARK),
    "malformed event": (then_close(STREAM_HEAD + sse("{nonsense")), FailureKind.MALFORMED),
    "error event": (
        always(STREAM_HEAD + sse({"error": {"message": "engine died"}}, "[DONE]") + b"0\r\n\r\n"),
        FailureKind.ERROR_IN_ANSWER,
    ),
    "no end mark": (always(STREAM_HEAD + sse(token(), token()) + b"0\r\n\r\n"), FailureKind.NO_END_MARK),
    "no count": (
        always(STREAM_HEAD + sse(token(), LAST_TOKEN, "[DONE]") + b"0\r\n\r\n"),
        FailureKind.NO_TOKEN_COUNT,
    ),
    "cut": (then_close(STREAM_HEAD + sse(token(), token())), FailureKind.CUT),
    "silent": (stream_a_token, FailureKind.IDLE_TIMEOUT),
}
FAULTS = [
    *((False, name, *fault) for name, fault in WHOLE_FAULTS.items()),
    *((True, name, *fault) for name, fault in STREAM_FAULTS.items()),
]


@pytest.mark.parametrize(
    ("stream", "script", "kind"),
    [(stream, script, kind) for stream, _, script, kind in FAULTS],
    ids=[f"{'stream' if stream else 'whole'}-{name}" for stream, name, _, _ in FAULTS],
)
def test_a_bad_answer_sends_the_sample_elsewhere_and_counts_against_the_server(
    stream: bool, script: Script, kind: FailureKind
) -> None:
    async def main() -> None:
        async with bench(script, serve_well, stream=stream, timeouts=Timeouts(idle_s=0.05)) as b:
            sample = 0
            while ServerState.EJECTED not in b.states(0):
                assert sample < 12
                (row,) = await b.serve(sample)
                assert not row.failure
                assert set(row.kinds) <= {kind}
                assert row.path[-1] == 1
                await b.until(lambda: b.pool.state(0) is not ServerState.SUSPECT)
                sample += 1
            assert b.pool.failed[0] == 3
            assert b.states(1) == []
            assert b.pool.completed == [0, sample]

    run(main())


# -- 503


def test_503_of_a_server_that_loads_again_takes_it_out_without_blame_until_its_health_is_good() -> None:
    async def main() -> None:
        async with bench(always(http(503)), serve_well) as b:
            b.servers[0].health = LOADING
            (row,) = await b.serve(0)
            assert (row.kinds, row.server) == ([FailureKind.HTTP_503], 1)
            await b.until_state(0, ServerState.STARTING)
            rows = await b.serve(*range(1, 9))
            assert {row.server for row in rows} == {1}
            b.servers[0].script, b.servers[0].health = serve_well, http(200)
            await b.until_state(0, ServerState.READY)
            rows = await b.serve(*range(9, 17))
            assert {row.server for row in rows} == {0, 1}
            assert b.states(0) == [ServerState.SUSPECT, ServerState.STARTING, ServerState.READY]
            assert b.pool.ejections == [0, 0]

    run(main())


def test_503_of_a_server_whose_health_is_good_counts_against_it() -> None:
    async def main() -> None:
        async with bench(always(http(503)), serve_well) as b:
            sample = 0
            while ServerState.EJECTED not in b.states(0):
                assert sample < 12
                (row,) = await b.serve(sample)
                assert not row.failure
                await b.until(lambda: b.pool.state(0) is not ServerState.SUSPECT)
                sample += 1
            assert len(b.servers[0].requests) == 3

    run(main())


# -- 429


def seconds_from_now(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "retry_after",
    [lambda: "30", lambda: seconds_from_now(30), lambda: "soon"],
    ids=["seconds", "date", "junk"],
)
def test_429_shifts_the_load_for_as_long_as_the_server_asks_and_never_ejects(
    retry_after: Callable[[], str],
) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.say(refusal(429, "slow down", Retry_After=retry_after()))

    async def main() -> None:
        health = dataclasses.replace(HEALTH, throttle_default_s=30.0)
        async with bench(busy, serve_well, health=health) as b:
            (row,) = await b.serve(0)
            assert (row.kinds, row.server) == ([FailureKind.HTTP_429], 1)
            assert b.pool.snapshot().servers[0].paused
            await b.serve(*range(1, 50))
            assert b.servers[0].samples == [0]
            assert b.transitions == []

    run(main())


@pytest.mark.parametrize(
    "retry_after",
    [lambda: "1", lambda: seconds_from_now(1), lambda: "soon", lambda: "0"],
    ids=["seconds", "date", "junk", "zero"],
)
def test_429_of_the_only_server_is_waited_for(retry_after: Callable[[], str]) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.say(refusal(429, "slow down", Retry_After=retry_after()))

    async def main() -> None:
        async with bench(first(1, busy)) as b:
            rows = await b.serve(*range(5))
            assert not any(row.failure for row in rows)
            assert b.transitions == []
            (row,) = [row for row in rows if row.attempts]
            refused, answered = row.attempts or ()
            if retry_after() == "1":
                assert answered.sent_ns - refused.end_ns >= 1e9

    run(main())


IMPATIENT = dataclasses.replace(RETRY, put_off_s=0.3)


def test_a_pool_that_says_nothing_but_429_ends_the_run() -> None:
    async def main() -> None:
        busy = always(refusal(429, "quota exceeded"))
        async with bench(busy, busy, retry=IMPATIENT) as b:
            rows = await b.serve(*range(20))
            assert all(row.failure == FailureKind.HTTP_429 for row in rows)
            assert "No server has answered anything" in b.broken[0]
            assert "quota exceeded" in b.broken[0]
            assert b.transitions == []

    run(main())


def test_a_sample_that_alone_is_put_off_fails_alone() -> None:
    async def main() -> None:
        picky = only_for(5, always(refusal(429, "request too large")))
        async with bench(picky, picky, retry=IMPATIENT) as b, b.load():
            (query,) = b.issue(5)
            await b.until(lambda: query in b.ledger.rows)
            row = b.ledger.rows[query]
            assert row.failure == FailureKind.HTTP_429
            assert b.broken == []

    run(main())


def test_several_samples_that_every_server_refuses_end_the_run_in_order() -> None:
    """The run is over with the first; those that were to be looked at after it are resolved with it."""

    async def main() -> None:
        bad = always(refusal(400))
        async with bench(bad, bad) as b:
            rows = await b.serve(*range(40))
            assert all(row.failure for row in rows)
            assert len(b.broken) == 1

    run(main())


def test_many_429s_in_a_row_cost_no_sample_its_attempts() -> None:
    """Being put off is no failure: more 429s than there are attempts, and nothing is lost."""

    async def main() -> None:
        busy = always(refusal(429, "slow down"))
        async with bench(first(8, busy), first(8, busy)) as b:
            rows = await b.serve(*range(4))
            assert not any(row.failure for row in rows)
            assert b.transitions == []

    run(main())


# -- other 4xx


@pytest.mark.parametrize("status", [400, 422])
def test_a_4xx_of_one_server_that_others_do_not_share_counts_against_that_server(status: int) -> None:
    async def main() -> None:
        async with bench(always(refusal(status, "no such field")), serve_well, serve_well) as b:
            sample = 0
            while ServerState.EJECTED not in b.states(0):
                assert sample < 20
                (row,) = await b.serve(sample)
                assert not row.failure
                assert row.path.count(0) <= 1
                sample += 1
            assert len(b.servers[0].requests) == 3
            assert f"HTTP {status}" in next(t.reason for t in b.transitions if t.new is ServerState.EJECTED)
            assert not b.broken

    run(main())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_alone_knows_no_key_or_path_is_excluded_by_name(status: int) -> None:
    async def main() -> None:
        async with bench(always(refusal(status, "not here")), serve_well) as b:
            (row,) = await b.serve(0)
            assert (row.kinds, row.server) == ([FailureKind.HTTP_4XX], 1)
            assert b.states(0) == [ServerState.EXCLUDED]
            assert f"HTTP {status}" in b.pool.last_error[0]
            assert "others serve the same request" in b.pool.last_error[0]
            rows = await b.serve(*range(1, 20))
            assert {row.server for row in rows} == {1}

    run(main())


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_sample_that_every_server_refuses_ends_the_run_and_is_named(status: int) -> None:
    released = asyncio.Event()
    bad = always(refusal(status, "the prompt is too long"))

    async def main() -> None:
        async with bench(*[only_for(3, bad, when(released))] * 3, retry=STOP) as b:
            b.issue(*range(8))
            await b.resolved()
            assert b.dispatcher.broken == b.broken[0]
            assert b.broken[0].startswith(f"sample 3: refused by every server: HTTP {status}")
            assert "the prompt is too long" in b.broken[0]
            assert [server.samples.count(3) for server in b.servers] == [1, 1, 1]
            assert b.dispatcher.counts.failed == 8
            assert b.transitions == [], "the request is at fault, and no server"

    run(main())


def test_a_sample_that_every_server_refuses_fails_alone_where_the_run_is_to_go_on() -> None:
    bad = always(refusal(400, "the prompt is too long"))

    async def main() -> None:
        async with bench(*[only_for(3, bad)] * 3, retry=CONTINUE) as b:
            rows = await b.serve(*range(12))
            assert [row.sample_index for row in rows if row.failure] == [3]
            assert rows[3].kinds == [FailureKind.HTTP_4XX] * 3
            assert sorted(rows[3].path) == [0, 1, 2]
            assert b.broken == []
            assert b.transitions == []
            (reason,) = b.dispatcher.errors
            assert "the prompt is too long" in reason

    run(main())


def test_the_only_servers_4xx_is_the_requests_fault() -> None:
    async def main() -> None:
        async with bench(only_for(0, always(refusal(400))), retry=CONTINUE) as b:
            rows = await b.serve(0, 1, 2)
            assert [bool(row.failure) for row in rows] == [True, False, False]
            assert b.servers[0].samples.count(0) == 1

    run(main())


# -- streams that had begun


def test_a_cut_stream_begins_again_elsewhere_and_its_first_token_is_reported_once() -> None:
    async def main() -> None:
        reported = asyncio.Event()

        async def begin_and_break(exchange: Exchange) -> None:
            await stream_a_token(exchange)
            await reported.wait()
            await exchange.reset()

        async with bench(begin_and_break, serve_well, stream=True) as b:
            (query_id,) = b.issue(0)
            await b.until(lambda: b.ledger.first_tokened == [query_id])
            reported.set()
            await b.resolved()
            row = b.ledger.rows[query_id]
            assert (row.failure, row.server, row.restarted) == (0, 1, True)
            assert row.kinds == [FailureKind.CUT]
            assert b.ledger.first_tokened == [query_id]
            assert b.dispatcher.counts.restarted_streams == 1
            cut, good = row.attempts or ()
            assert row.first_token_ns <= cut.end_ns < good.sent_ns, "the token of the first attempt counts"
            assert row.n_tokens == N_TOKENS, "and nothing else of it"

    run(main())


def test_two_servers_that_each_cut_the_same_sample_and_live_do_not_hold_it_up() -> None:
    """No death is ever confirmed, since both answer their probes: the sample goes on to the third."""

    async def begin_and_break(exchange: Exchange) -> None:
        await stream_a_token(exchange)
        await exchange.close()

    async def main() -> None:
        async with bench(begin_and_break, begin_and_break, serve_well, stream=True) as b:
            (row,) = await b.serve(0)
            assert (row.failure, row.path) == (0, [0, 1, 2])
            assert b.dispatcher.counts.restarted_streams == 2

    run(main())


def test_a_sample_that_failed_after_its_first_token_has_no_tokens_for_loadgen() -> None:
    async def begin_and_break(exchange: Exchange) -> None:
        await stream_a_token(exchange)
        await exchange.close()

    async def main() -> None:
        async with bench(begin_and_break, stream=True, health=LENIENT) as b:
            (row,) = await b.serve(0)
            assert row.failure == FailureKind.CUT
            assert (row.n_tokens, row.n_attempts, row.restarted) == (0, RETRY.max_retries_per_server, True)
            assert len(b.ledger.first_tokened) == 1

    run(main())


# -- how often, and how fast


@pytest.mark.parametrize("n_servers", [1, 3])
@pytest.mark.parametrize("per_server", [1, 3])
def test_a_sample_is_asked_of_each_server_at_most_max_retries_per_server_times(
    n_servers: int, per_server: int
) -> None:
    retry = dataclasses.replace(RETRY, max_retries_per_server=per_server)

    async def main() -> None:
        async with bench(*[always(refusal(500))] * n_servers, health=LENIENT, retry=retry) as b:
            rows = await b.serve(0, 1)
            for row in rows:
                assert row.kinds == [FailureKind.HTTP_5XX] * n_servers * per_server
                assert [row.path.count(s) for s in range(n_servers)] == [per_server] * n_servers
                assert len(set(row.path[:n_servers])) == n_servers, "untried servers come first"
            assert b.broken == []

    run(main())


def test_retries_are_paced_by_the_budget_which_fails_no_sample() -> None:
    async def often_bad(exchange: Exchange) -> None:
        if exchange.nth % 10 in (0, 3, 6):
            await exchange.say(refusal(500))
        else:
            await exchange.answer()

    async def main() -> None:
        retry = dataclasses.replace(RETRY, budget_share=0.2, budget_per_s=100.0)
        async with bench(*[often_bad] * 3, retry=retry, max_in_flight=8) as b:
            n = 400
            rows = await b.serve(*range(n))
            assert not any(row.failure for row in rows)
            counts = b.dispatcher.counts
            assert n < counts.attempts < 1.7 * n
            began_ns = min(row.issued_ns for row in rows)
            ended_ns = max(row.done_ns for row in rows)
            allowed = 20 + 0.2 * n + 100.0 * (ended_ns - began_ns) * 1e-9
            assert counts.retried <= allowed + 1

    run(main())


def test_health_that_fails_while_completions_succeed_harms_nobody() -> None:
    async def main() -> None:
        async with bench(serve_well, serve_well) as b:
            for server in b.servers:
                server.health, server.models = http(500), MODELS
            rows = await b.serve(*range(50))
            assert not any(row.failure for row in rows)
            assert b.transitions == []

    run(main())


def test_an_error_body_is_quoted_in_the_failure() -> None:
    async def main() -> None:
        said = http(200, json.dumps({"error": {"message": "CUDA out of memory"}}).encode())
        async with bench(first(1, always(said)), serve_well) as b:
            (row,) = await b.serve(0)
            assert "CUDA out of memory" in (row.attempts or ())[0].message
            assert "CUDA out of memory" in b.pool.last_error[0]

    run(main())


def test_retries_are_not_paced_where_the_attempts_in_flight_are_bounded() -> None:
    """A retry takes the place of another sample there, so that it is no further load."""
    tight = dataclasses.replace(RETRY, budget_share=0.0, budget_per_s=0.001, paced=False)
    patient = dataclasses.replace(HEALTH, failures_in_a_row=1000, window_min=10_000)

    async def main() -> None:
        bad = always(refusal(500))
        async with bench(bad, serve_well, retry=tight, health=patient, max_in_flight=4) as b:
            await b.serve(*range(200))
            assert b.dispatcher.counts.completed == 200
            assert b.dispatcher.counts.retried > 20  # more than the budget's burst

    run(main())
