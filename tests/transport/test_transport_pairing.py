"""An answer is taken only for the request that it belongs to."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transport_peers import LAST_CHUNK, STREAM_HEAD, Bench, Peer, Script, Words, bench, chunk, run, whole

from lbrun.attempt import AttemptFailure, AttemptResult, BadAnswer, FailureKind
from lbrun.transport import InlineWorker, make_endpoint
from lbrun.transport.pairing import Pairing, is_unasked

BODIES: list[bytes | memoryview] = [b"%d" % i for i in range(200)]


async def one_by_one(b: Bench, n: int) -> list[AttemptResult | AttemptFailure]:
    for i in range(n):
        b.submit(i, sample=i)
        await b.sink.until(lambda i=i: i in b.sink.outcomes)  # type: ignore[misc]
    return [b.sink.outcomes[i] for i in range(n)]


def kinds(outcomes: list[AttemptResult | AttemptFailure]) -> list[FailureKind | None]:
    return [o.kind if isinstance(o, AttemptFailure) else None for o in outcomes]


def echoing(where: str, *, mixed_up_at: int = -1, stream: bool = False) -> Script:
    """Sends each request's id back in the body or in a header; at one request that of the last one."""
    last, n = b"", 0

    async def script(peer: Peer) -> None:
        nonlocal last, n
        while True:
            head, _ = await peer.request()
            found = re.search(rb"X-Request-Id: (\S+)\r\n", head)
            assert found
            said = last if n == mixed_up_at else found[1]
            last, n = found[1], n + 1
            if stream:
                start = b": cmpl-%b\n" % said if where == "body" else b""
                headers = b"" if where == "body" else b"X-Request-ID: %b\r\n" % said
                begin = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n")
                await peer.say(begin + chunk(start + b"tok\nend\n") + LAST_CHUNK)
            elif where == "body":
                body = b'{"id": "cmpl-%b", "n": 1}' % said
                await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            else:
                await peer.say(whole(1, str(n), b"x-request-id: %b\r\n" % said))

    return script


@pytest.mark.parametrize("where", ["body", "header"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_with_the_id_of_another_request_is_refused(where: str, stream: bool) -> None:
    async def main() -> None:
        script = echoing(where, mixed_up_at=5, stream=stream)
        async with bench(script, bodies=BODIES, stream=stream) as b:
            outcomes = await one_by_one(b, 10)
            assert kinds(outcomes) == [None] * 5 + [FailureKind.MISMATCH] + [None] * 4
            failure = outcomes[5]
            assert isinstance(failure, AttemptFailure)
            assert re.fullmatch(
                r"the answer is to request lbrun-\w+-4z, not to lbrun-\w+-5z", failure.message
            )
            assert 5 not in b.sink.tokens
            assert b.servers[0].n_connections == 2

    run(main())


def test_ids_of_the_users_own_are_left_as_they_are() -> None:
    async def main() -> None:
        heads = []

        async def script(peer: Peer) -> None:
            head, _ = await peer.request()
            heads.append(head)
            await peer.say(whole())

        async with bench(script) as b:
            url = f"http://127.0.0.1:{b.servers[0].port}"
            endpoint = make_endpoint(url, "/x", headers={"x-request-id": "100%d"})
            worker = InlineWorker([endpoint], [b"{}"], Words())
            worker.start(b.sink)
            worker.submit(0, 0, 0)
            await b.sink.result(0)
            await worker.close()
            assert heads[0].lower().count(b"x-request-id") == 1
            assert b"x-request-id: 100%d\r\n" in heads[0]

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeated_answer_is_not_taken_for_that_to_the_next_request(stream: bool) -> None:
    """A server without ids sends each answer twice, the second while the next request is on its way."""

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            sample = int(body)
            if stream:
                answer = STREAM_HEAD + chunk(b": %d\ntok\nend\n" % sample) + LAST_CHUNK
            else:
                answer = whole(1, f"answer {sample}")
            await peer.say(answer)
            if peer.number < 2:
                await peer.gone()
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.say(answer)
            await peer.gone()

    async def main() -> None:
        async with bench(script, bodies=BODIES, stream=stream) as b:
            for i in (100, 101):  # two answers that differ
                b.submit(i, sample=i, fresh=True)
                await b.sink.result(i)
                b.worker.evict(0)
            outcomes = await one_by_one(b, 20)
            assert kinds(outcomes) == [None, FailureKind.MISMATCH] * 10

    run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n_texts", [1, 2])
def test_a_server_that_says_the_same_to_many_is_believed(stream: bool, n_texts: int) -> None:
    """Where it says the same to all, at once; else an attempt or two are lost to the doubt."""

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            text = int(body) // 3 % n_texts
            stream_body = b": %d\ntok\nend\n" % text
            await peer.say(STREAM_HEAD + chunk(stream_body) + LAST_CHUNK if stream else whole(1, f"{text}"))

    async def main() -> None:
        async with bench(script, bodies=BODIES, stream=stream) as b:
            lost = [kind for kind in kinds(await one_by_one(b, 60)) if kind]
            assert lost == [FailureKind.MISMATCH] * (n_texts - 1)

    run(main())


# -- answers that nobody asked for


def surplus(said: bytes) -> Script:
    """Answers, and says something more on the connection at rest."""

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.say(whole(1, body.decode()))
            if body == b"0":
                await asyncio.sleep(0.02)
                await peer.say(said)

    return script


def test_a_server_that_answers_unasked_gets_one_request_on_each_connection() -> None:
    async def main() -> None:
        async with bench(surplus(whole(1, "0")), bodies=BODIES) as b:
            b.submit(0, sample=0)
            await b.sink.result(0)
            while b.worker.unasked_answers() == [0]:
                await asyncio.sleep(0.001)
            for i in range(1, 6):
                b.submit(i, sample=i)
                assert (await b.sink.result(i)).answer.payload != b"0"
            assert b.servers[0].n_connections == 6
            assert b.worker.unasked_answers() == [1]

    run(main())


def test_what_is_under_way_on_used_connections_is_taken_back_from_such_a_server() -> None:
    async def main() -> None:
        may_answer = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                _, body = await peer.request()
                if body == b"7":
                    await peer.gone()
                    return
                await peer.say(whole(1, body.decode()))
                if body == b"1":
                    await may_answer.wait()
                    await peer.say(whole(1, "unasked"))

        async with bench(script, bodies=BODIES) as b:
            b.submit(0, sample=1)
            await b.sink.result(0)
            b.submit(1, sample=2, fresh=True)
            await b.sink.result(1)
            b.submit(2, sample=7)  # on the connection used last
            may_answer.set()
            failure = await b.sink.failure(2)
            assert failure.kind is FailureKind.MISMATCH
            assert failure.message == "the server sends answers that nobody asked for"

    run(main())


@pytest.mark.parametrize(
    "said", [b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_proxys_goodbye_is_no_answer(said: bytes) -> None:
    assert not is_unasked(said)
    assert is_unasked(whole())

    async def main() -> None:
        async with bench(surplus(said), bodies=BODIES) as b:
            b.submit(0, sample=0)
            await b.sink.result(0)
            while b.worker._lanes[0].n_open:
                await asyncio.sleep(0.001)
            assert b.worker.unasked_answers() == [0]

    run(main())


# -- counts of prompts


def count(pairing: Pairing, *steps: tuple[int, int, bool]) -> list[bool]:
    """Which of the answers are refused. steps: length, counted, reused."""

    def is_refused(step: tuple[int, int, bool]) -> bool:
        try:
            pairing.check_prompt(*step)
        except BadAnswer as bad:
            return bad.kind is FailureKind.MISMATCH
        return False

    return [is_refused(step) for step in steps]


def test_a_count_of_another_prompt_is_refused() -> None:
    steps = [(5, 5, False), (7, 5, True), (9, 9, False), (4, 9, True)]
    assert count(Pairing(), *steps) == [False, True, False, True]


def test_a_server_that_has_counted_right_is_refused_even_on_a_new_connection() -> None:
    right = [(10 + i, 10 + i, True) for i in range(40)]
    assert count(Pairing(), *right, (5, 6, False))[-1]


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), max_size=200), st.integers(-50, 50))
def test_a_server_that_counts_in_its_own_way_is_left_alone(
    prompts: list[tuple[int, bool]], more: int
) -> None:
    """It counts a start token as well, or always the same: the first answers of connections tell."""
    shifted = [(n, max(n + (more or 1), 1), reused) for n, reused in prompts]
    if all(n != counted for n, counted, _ in shifted):
        assert not any(count(Pairing(), *shifted))
    constant = [(n, 5, reused) for n, reused in prompts]
    refused = count(Pairing(), *constant, (99, 5, False), *constant)
    assert not any(refused[len(constant) + 1 :])
