"""Worker processes at work: scripted servers over loopback, a sink that counts, and the inline worker's word.

The servers are on the test's own event loop; the worker processes are real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import uvloop

from lbrun.attempt import AttemptFailure, AttemptResult, FailureKind, Worker
from lbrun.datasets.api import Sample
from lbrun.formats import FormatOptions, make_format
from lbrun.formats.options import PayloadKind
from lbrun.transport import InlineWorker, Limits, Timeouts, make_endpoint
from lbrun.workers import ProcessWorkers, SharedBodies, WorkerSetup

BOUND_S = 20.0
"""So long a test waits for an event that must come; a process may have to start for it."""
MODEL = "tiny"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, as a run does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, 3 * BOUND_S))


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that must come and that nobody announces."""
    deadline_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {BOUND_S:g} s: {what}"
        await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its status yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---- servers


def http(status: int, body: bytes, **headers: str) -> bytes:
    """A whole answer; underscores in names of headers become hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def completion(sample: int, *, finish_reason: str | None = None, n_tokens: int | None = None) -> bytes:
    """The whole answer to a sample, which depends on the sample: text, ids, counts and why it ended."""
    n = sample % 7 + 1
    choice = {
        "index": 0,
        "text": f"the answer to {sample}",
        "token_ids": [sample + i for i in range(n)],
        "finish_reason": finish_reason or ("length" if sample % 2 else "stop"),
    }
    usage = {"prompt_tokens": sample, "completion_tokens": n if n_tokens is None else n_tokens}
    return json.dumps({"object": "text_completion", "choices": [choice], "usage": usage}).encode()


def events(*payloads: object) -> bytes:
    """Server-sent events as one chunk; strings go as they are, all else as JSON."""
    texts = [p if isinstance(p, str) else json.dumps(p) for p in payloads]
    data = "".join(f"data: {text}\n\n" for text in texts).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(token_id: int, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "a", "token_ids": [token_id], "finish_reason": finish_reason}]}


def stream_end(sample: int) -> bytes:
    """All of a stream but its head and first event."""
    n = sample % 7 + 2
    usage = {"choices": [], "usage": {"prompt_tokens": sample, "completion_tokens": n}}
    tokens = [token(sample + i) for i in range(1, n - 1)]
    return events(*tokens, token(sample + n - 1, "stop"), usage, "[DONE]") + b"0\r\n\r\n"


@dataclass
class Exchange:
    """One request for a sample, and what a script can do about it. connection: which of the server's."""

    sample: int
    body: bytes
    connection: int
    _writer: asyncio.StreamWriter

    @property
    def stream(self) -> bool:
        return b'"stream":true' in self.body

    async def say(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError  # the server was killed meanwhile
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> None:
        """A good answer, in the form that was asked for."""
        if self.stream:
            await self.say(STREAM_HEAD + events(token(self.sample)) + stream_end(self.sample))
        else:
            await self.say(http(200, completion(self.sample)))

    def answer_at_once(self) -> None:
        """The same past the event loop: it is on its way when this returns."""
        whole = http(200, completion(self.sample))
        assert os.write(self._writer.get_extra_info("socket").fileno(), whole) == len(whole)

    def reset(self) -> None:
        """End the connection with RST."""
        reset(self._writer)


Script = Callable[[Exchange], Awaitable[None]]


async def serve_well(exchange: Exchange) -> None:
    await exchange.answer()


async def hang(exchange: Exchange) -> None:
    await asyncio.Event().wait()


def when(released: asyncio.Event) -> Script:
    """Holds every request until the event."""

    async def wait(exchange: Exchange) -> None:
        await released.wait()
        await exchange.answer()

    return wait


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Server:
    """A server on loopback whose answers are scripted; healthy whenever it is there.

    requests: the samples that were asked for, in order, each with its connection's number. n_open:
    connections that the client has not closed.
    """

    def __init__(self, script: Script = serve_well) -> None:
        self.script = script
        self.requests: list[tuple[int, int]] = []
        self.port = self.n_connections = 0
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def samples(self) -> list[int]:
        return [sample for sample, _ in self.requests]

    @property
    def n_open(self) -> int:
        return sum(not r.at_eof() and not w.is_closing() for r, w in self._connections.values())

    async def start(self) -> None:
        """Listen; after a `kill`, on the same port again."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=1 << 22)
        self.port = self._listener.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Be gone at once, as after SIGKILL: nobody listens, every connection is reset."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for _, writer in self._connections.values():
            reset(writer)

    async def stop(self) -> None:
        self.kill()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (reader, writer)
        if self._listener is None:
            reset(writer)  # accepted in the moment of its death
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self.n_connections
        self.n_connections += 1
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                models = {"object": "list", "data": [{"id": MODEL}]}
                writer.write(http(200, json.dumps(models).encode(), Connection="close"))
                writer.close()
                continue
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            sample = int(body.partition(b'"prompt":[')[2].partition(b"]")[0].partition(b",")[0])
            self.requests.append((sample, connection))
            await self.script(Exchange(sample, body, connection, writer))


# ---- who is told


class Sink:
    """Keeps what is reported, and what should not have been."""

    def __init__(self) -> None:
        self.outcomes: dict[int, AttemptResult | AttemptFailure] = {}
        self.first_tokens: dict[int, tuple[int, bytes | None]] = {}
        self.misreports: list[str] = []

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        if attempt_id in self.first_tokens:
            self.misreports.append(f"a second first token of {attempt_id}")
        if attempt_id in self.outcomes:
            self.misreports.append(f"the first token of {attempt_id} after its end")
        self.first_tokens[attempt_id] = (at_ns, payload)

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        self._end(attempt_id, result)

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        self._end(attempt_id, failure)

    def _end(self, attempt_id: int, outcome: AttemptResult | AttemptFailure) -> None:
        if attempt_id in self.outcomes:
            self.misreports.append(f"a second end of {attempt_id}")
        self.outcomes[attempt_id] = outcome

    def kinds(self, *attempt_ids: int) -> list[FailureKind | None]:
        """How attempts failed, None for those that did not."""
        outcomes = [self.outcomes[attempt_id] for attempt_id in attempt_ids]
        return [o.kind if isinstance(o, AttemptFailure) else None for o in outcomes]

    async def heard_of(self, *attempt_ids: int) -> None:
        """Wait until all of these have ended."""
        await until(lambda: all(i in self.outcomes for i in attempt_ids), f"the ends of {attempt_ids[:20]}")


def timeless(outcome: AttemptResult | AttemptFailure) -> AttemptResult | AttemptFailure:
    """The same without its times, but for whether there was one."""
    if isinstance(outcome, AttemptResult):
        seen = outcome.first_token_ns > 0
        return outcome._replace(sent_ns=0, first_byte_ns=0, first_token_ns=seen, done_ns=0)
    return outcome._replace(at_ns=0, sent_ns=0, first_token_ns=outcome.first_token_ns > 0)


# ---- workers


def options(*, stream: bool = False, payload: PayloadKind = "none") -> FormatOptions:
    return FormatOptions(model=MODEL, backend="vllm", stream=stream, payload=payload)


def encode(format_options: FormatOptions, n: int, filler: bytes = b"") -> list[bytes]:
    """Bodies of n samples; filler: what the prompts hold besides the sample's number."""
    request_format = make_format("completions", format_options)
    return [request_format.encode(Sample(i, token_ids=b"[%d%b]" % (i, filler))) for i in range(n)]


def setup(
    urls: Sequence[str],
    format_options: FormatOptions,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
) -> WorkerSetup:
    endpoints = tuple(make_endpoint(url, "/v1/completions") for url in urls)
    return WorkerSetup(endpoints, "completions", format_options, timeouts or Timeouts(), limits or Limits())


def inline_worker(urls: Sequence[str], format_options: FormatOptions, bodies: Sequence[bytes]) -> Worker:
    endpoints = [make_endpoint(url, "/v1/completions") for url in urls]
    return InlineWorker(endpoints, bodies, make_format("completions", format_options))


@dataclass
class Bench:
    """Worker processes and what they work with. broken: reasons why they could not go on."""

    servers: list[Server]
    bodies: SharedBodies
    workers: ProcessWorkers
    sink: Sink
    broken: list[str] = field(default_factory=list)
    _next: int = 0

    def submit(self, *samples: int, server: int = 0, fresh: bool = False) -> list[int]:
        """Submit an attempt for each sample and hand them over; returns their ids."""
        ids = list(range(self._next, self._next + len(samples)))
        self._next += len(samples)
        for attempt_id, sample in zip(ids, samples, strict=True):
            self.workers.submit(attempt_id, sample, server, fresh)
        self.workers.flush()
        return ids

    async def serve(self, *samples: int, server: int = 0) -> list[AttemptResult | AttemptFailure]:
        """Submit attempts and wait for their ends."""
        ids = self.submit(*samples, server=server)
        await self.sink.heard_of(*ids)
        return [self.sink.outcomes[i] for i in ids]

    async def reached(self, n: int, server: int = 0) -> None:
        """Wait until a server has got so many requests in all."""
        requests = self.servers[server].requests
        await until(lambda: len(requests) >= n, f"server {server} gets {n} requests")

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self.workers.pids]


@asynccontextmanager
async def bench(
    *scripts: Script,
    n: int = 2,
    n_samples: int = 300,
    format_options: FormatOptions | None = None,
    bodies: Sequence[bytes] | None = None,
    timeouts: Timeouts | None = None,
    start: bool = True,
    **workers_settings: Any,
) -> AsyncIterator[Bench]:
    """A server per script (at least one) and n worker processes; every promise is checked as it ends.

    start: have the workers started. workers_settings: of `ProcessWorkers`.
    """
    servers = [Server(script) for script in scripts or (serve_well,)]
    for server in servers:
        await server.start()
    format_options = format_options or options()
    shared = SharedBodies.store(bodies if bodies is not None else encode(format_options, n_samples))
    broken: list[str] = []
    workers = ProcessWorkers(
        n,
        setup([server.url for server in servers], format_options, timeouts),
        shared,
        on_broken=broken.append,
        **workers_settings,
    )
    sink = Sink()
    bench = Bench(servers, shared, workers, sink, broken)
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    pids = workers.pids
    try:
        if start:
            workers.start(sink)
        yield bench
        pids += workers.pids
    finally:
        await workers.close()
        shared.close()
        for server in servers:
            await server.stop()
    assert sink.misreports == []
    assert [repr(trouble) for trouble in troubles] == []
    assert all(map(is_gone, pids)), "processes are left"


def descriptors() -> set[str]:
    """What this process has open, by number; without a spare one that uvloop takes when it first listens."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(f"{entry.name} {entry.readlink()}")
    return {one for one in found if not one.endswith("/dev/null")}
