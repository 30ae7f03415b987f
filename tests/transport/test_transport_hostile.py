"""Whatever servers and the caller do: each attempt is reported once, or not at all where it was cancelled."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport_peers import LAST_CHUNK, STREAM_HEAD, Bench, Peer, Script, bench, chunk, run, whole

from lbrun.attempt import AttemptResult
from lbrun.transport import Limits, Timeouts

PIECES = [
    whole(1),
    whole(1)[:-3],
    whole(1) + b"\r\n",
    whole(1) * 2,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 429 X\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b'{"n": 1}',
    STREAM_HEAD,
    chunk(b"tok\n"),
    chunk(b"end\n"),
    chunk(b"bad\n"),
    chunk(b"crash\n"),
    LAST_CHUNK,
    b"\x00\xff junk \r\n",
]
STEPS = st.one_of(st.sampled_from(PIECES), st.sampled_from(["await request", "close", "reset", "hang"]))
SCRIPTS = st.lists(STEPS, max_size=8)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 12), st.booleans()),
        st.tuples(st.just("evict"), st.integers(0, 1), st.booleans()),
    ),
    max_size=14,
)


def hostile(scripts: list[list[bytes | str]]) -> Script:
    """Each connection gets the next of the scripts; all begin with a request."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for step in scripts[peer.number % len(scripts)]:
            if isinstance(step, bytes):
                await peer.say(step)
            elif step == "await request":
                await peer.request()
            elif step == "hang":
                await peer.gone()
            else:
                await (peer.reset() if step == "reset" else peer.close())
                return

    return script


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(SCRIPTS, min_size=1, max_size=3),
    st.lists(SCRIPTS, min_size=1, max_size=3),
    ACTIONS,
    st.booleans(),
)
def test_each_attempt_is_reported_exactly_once_or_was_cancelled(
    one: list[list[bytes | str]],
    two: list[list[bytes | str]],
    actions: list[tuple[str, int, bool]],
    stream: bool,
) -> None:
    timeouts = Timeouts(first_byte_s=0.03, idle_s=0.03, total_s=0.2)
    limits = Limits(max_connecting=2)
    submitted, cancelled = set[int](), set[int]()

    async def drive(b: Bench) -> None:
        for name, number, pauses in actions:
            if name == "submit":
                submitted.add(attempt_id := len(submitted))
                b.submit(attempt_id, server=number, fresh=pauses)
            elif name == "cancel" and number in submitted and number not in b.sink.outcomes:
                cancelled.add(number)
                b.worker.cancel(number)
            elif name == "evict":
                b.worker.evict(number)
            if pauses:
                await asyncio.sleep(0.001)

    async def main() -> None:
        async with bench(hostile(one), hostile(two), stream=stream, timeouts=timeouts, limits=limits) as b:
            await drive(b)
            await b.sink.until(lambda: set(b.sink.outcomes) >= submitted - cancelled)
            assert set(b.sink.outcomes) == submitted - cancelled
            assert not b.worker._open
            for attempt_id, outcome in b.sink.outcomes.items():
                if isinstance(outcome, AttemptResult):
                    assert outcome.answer.n_tokens > 0
                    assert outcome.sent_ns <= outcome.first_byte_ns <= outcome.done_ns
                    assert (attempt_id in b.sink.tokens) == stream
                else:
                    assert outcome.message

    run(main())
