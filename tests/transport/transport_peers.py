"""What the transport's tests talk to: servers scripted byte by byte, a small format, a sink that counts."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from lbrun.attempt import Answer, AttemptFailure, AttemptResult, BadAnswer, FailureKind
from lbrun.datasets.api import Sample
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint

BOUND_S = 10.0
"""So long a test waits for an event that must come."""

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *, plain_loop: bool = False) -> T:
    """Run on uvloop, or on asyncio's own loop."""
    factory = asyncio.new_event_loop if plain_loop else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asyncio.wait_for(main, 4 * BOUND_S))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.001)


# ---- a format


MAX_TOKENS = 50


class LineDecoder:
    """Streams are lines: ``tok``, ``bad`` for an error in the stream, ``end`` for the end mark."""

    def __init__(self) -> None:
        self.has_token = self.ended = False
        self.error: BadAnswer | None = None
        self.rest = b""
        self.n_tokens = self.n_content = 0

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line == b"tok":
                self.n_tokens, self.has_token = self.n_tokens + 1, True
                self.n_content += 1
            elif line == b"end":
                self.ended = True
            elif line == b"bad":
                self.error = BadAnswer(FailureKind.ERROR_IN_ANSWER, "the server says: bad")
                return
            elif line == b"crash":
                raise ZeroDivisionError("a defect of the format")

    def first_payload(self) -> bytes | None:
        return b"first"

    def goes_on_too_long(self) -> str | None:
        return "the stream goes on" if self.n_content > MAX_TOKENS else None

    def finish(self) -> Answer:
        if self.rest == b"tok":
            self.n_tokens, self.has_token = self.n_tokens + 1, True
        elif not self.ended:
            raise BadAnswer(FailureKind.NO_END_MARK, "no end mark")
        if not self.n_tokens:
            raise BadAnswer(FailureKind.EMPTY_ANSWER, "no token")
        return Answer(self.n_tokens, 0, None, "stop")


class Words:
    """A request format: whole answers are ``{"n": tokens, "text": ...}``."""

    name, path = "words", "/v1/words"

    def __init__(self, stream: bool = False) -> None:
        self.stream, self.max_tokens = stream, MAX_TOKENS

    def encode(self, sample: Sample) -> bytes:
        return b"{}"

    def decode(self, body: bytes) -> Answer:
        try:
            said = json.loads(body)
        except ValueError:
            raise BadAnswer(FailureKind.MALFORMED, "no JSON") from None
        if said == "crash":
            raise ZeroDivisionError("a defect of the format")
        if not said.get("n"):
            raise BadAnswer(FailureKind.EMPTY_ANSWER, "no token")
        return Answer(said["n"], 0, str(said.get("text", "")).encode(), "stop")

    def stream_decoder(self) -> LineDecoder:
        return LineDecoder()


# ---- a sink


class Sink:
    """Keeps what is reported, and whether anything is reported twice."""

    def __init__(self) -> None:
        self.outcomes: dict[int, AttemptResult | AttemptFailure] = {}
        self.tokens: dict[int, int] = {}
        self.misreports: list[str] = []
        self.on_outcome: Callable[[int], None] = lambda attempt_id: None
        self.on_token: Callable[[int], None] = lambda attempt_id: None
        self._changed = asyncio.Event()

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        if attempt_id in self.tokens or attempt_id in self.outcomes:
            self.misreports.append(f"late or second first token of {attempt_id}")
        self.tokens[attempt_id] = at_ns
        self.on_token(attempt_id)
        self._changed.set()

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        self._end(attempt_id, result)

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        self._end(attempt_id, failure)

    def _end(self, attempt_id: int, outcome: AttemptResult | AttemptFailure) -> None:
        if attempt_id in self.outcomes:
            self.misreports.append(f"{attempt_id} reported twice")
        self.outcomes[attempt_id] = outcome
        self._changed.set()
        self.on_outcome(attempt_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def result(self, attempt_id: int) -> AttemptResult:
        await self.until(lambda: attempt_id in self.outcomes)
        outcome = self.outcomes[attempt_id]
        assert isinstance(outcome, AttemptResult), outcome
        return outcome

    async def failure(self, attempt_id: int) -> AttemptFailure:
        await self.until(lambda: attempt_id in self.outcomes)
        outcome = self.outcomes[attempt_id]
        assert isinstance(outcome, AttemptFailure), outcome
        return outcome


# ---- servers


class Peer:
    """The server's side of one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
        heard: Callable[[], bool],
    ) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self._heard = heard

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()

    async def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def heard(self) -> None:
        """Wait until the worker has read some of an answer; a reset discards what it has not."""
        await eventually(self._heard)

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.reader.read(65536):
            pass


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs the script for each connection, numbered from 0, and closes it after."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard: Callable[[], bool] = lambda: True
        self.n_connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.listener = await asyncio.start_server(
            self._accept, "127.0.0.1", port, ssl=tls, backlog=2048, limit=1 << 24
        )
        self.port = self.listener.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self.n_connections, self.heard)
        self.n_connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    def stop_listening(self) -> None:
        self.listener.close()

    async def stop(self) -> None:
        self.listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Bench:
    """A worker, its sink and its servers."""

    def __init__(self, worker: InlineWorker, sink: Sink, servers: list[Server]) -> None:
        self.worker, self.sink, self.servers = worker, sink, servers

    def submit(self, attempt_id: int = 0, sample: int = 0, server: int = 0, fresh: bool = False) -> None:
        self.worker.submit(attempt_id, sample, server, fresh)
        self.worker.flush()


@asynccontextmanager
async def bench(
    *scripts: Script,
    stream: bool = False,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    bodies: list[bytes | memoryview] | None = None,
    api_key: str | None = None,
) -> AsyncIterator[Bench]:
    """A worker over one server per script. Nothing may have been reported twice in the end."""
    servers = [Server(script) for script in scripts]
    for server in servers:
        await server.start()
    words = Words(stream)
    endpoints = [make_endpoint(f"http://127.0.0.1:{s.port}", words.path, api_key=api_key) for s in servers]
    worker = InlineWorker(endpoints, bodies or [b"{}"], words, timeouts=timeouts, limits=limits)
    for i, server in enumerate(servers):
        server.heard = lambda i=i: worker.last_byte_ns(i) > 0  # type: ignore[misc]
    sink = Sink()
    worker.start(sink)
    try:
        yield Bench(worker, sink, servers)
    finally:
        async with asyncio.timeout(BOUND_S):
            await worker.close()
            for server in servers:
                await server.stop()
    assert sink.misreports == []


# ---- answers


def whole(n: int = 1, text: str = "", headers: bytes = b"") -> bytes:
    """A good whole answer."""
    body = json.dumps({"n": n, "text": text}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), headers, body)


def status(code: int, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n%b" % (code, len(body), headers, body)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def always(answer: bytes) -> Script:
    """Answers every request of every connection so."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(answer)

    return script


def once(*steps: bytes | Callable[[Peer], Awaitable[None]]) -> Script:
    """After a request, says each piece or takes each step."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for step in steps:
            if isinstance(step, bytes):
                await peer.say(step)
            else:
                await step(peer)

    return script
