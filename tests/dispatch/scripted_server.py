"""A server on loopback whose every answer is scripted: for each sample, for its health and its model list.

It speaks HTTP by hand, so that a script can break it at any byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

MODEL = "tiny"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
N_TOKENS = 3


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer; underscores in names of headers become hyphens."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def refusal(status: int, message: str = "no", **headers: str) -> bytes:
    """An error as OpenAI-compatible servers put it."""
    return http(status, json.dumps({"error": {"message": message}}).encode(), **headers)


def completion(n_tokens: int = N_TOKENS) -> bytes:
    """The body of a whole answer to ``/v1/completions``."""
    choice = {"index": 0, "text": " yes", "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": n_tokens}
    return json.dumps({"object": "text_completion", "choices": [choice], "usage": usage}).encode()


def sse(*payloads: object) -> bytes:
    """Server-sent events as one chunk; strings go as they are, all else as JSON."""
    texts = [p if isinstance(p, str) else json.dumps(p) for p in payloads]
    data = "".join(f"data: {text}\n\n" for text in texts).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(text: str = "a") -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": None}]}


LAST_TOKEN = {"choices": [{"index": 0, "text": "z", "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": N_TOKENS}}
WHOLE = http(200, completion())
STREAM = STREAM_HEAD + sse(token(), token(), LAST_TOKEN, USAGE, "[DONE]") + b"0\r\n\r\n"
HEALTHY = http(200, Connection="close")
LOADING = http(503, Connection="close")
MODELS = http(200, json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode(), Connection="close")


class Exchange:
    """One request for a sample, and what a script can do about it.

    sample: its index. nth: which request of the server's it is, from 0. on_connection: which of its
    connection's, from 0. body: as it came.
    """

    def __init__(
        self, server: ScriptedServer, writer: asyncio.StreamWriter, body: bytes, nth: int, on_connection: int
    ) -> None:
        self.server, self.body, self.nth, self.on_connection = server, body, nth, on_connection
        self.sample = int(json.loads(body)["prompt"][0])
        self._writer = writer

    async def say(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError  # the server was killed meanwhile
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> None:
        """A good answer, in the form that was asked for."""
        await self.say(STREAM if json.loads(self.body).get("stream") else WHOLE)

    async def close(self) -> None:
        """End the connection in order."""
        self._writer.close()

    async def reset(self) -> None:
        """End the connection with RST."""
        reset(self._writer)

    async def hang(self) -> None:
        await asyncio.Event().wait()


Script = Callable[[Exchange], Awaitable[None]]


async def serve_well(exchange: Exchange) -> None:
    await exchange.answer()


def always(answer: bytes) -> Script:
    """Says so to every request."""

    async def script(exchange: Exchange) -> None:
        await exchange.say(answer)

    return script


def first(n: int, script: Script, then: Script = serve_well) -> Script:
    """One script for the server's first n requests, another for the rest."""

    async def choose(exchange: Exchange) -> None:
        await (script if exchange.nth < n else then)(exchange)

    return choose


def only_for(sample: int, script: Script, others: Script = serve_well) -> Script:
    """One script for one sample, another for all others."""

    async def choose(exchange: Exchange) -> None:
        await (script if exchange.sample == sample else others)(exchange)

    return choose


def when(released: asyncio.Event, script: Script = serve_well) -> Script:
    """Holds every request until the event."""

    async def wait(exchange: Exchange) -> None:
        await released.wait()
        await script(exchange)

    return wait


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


async def close(exchange: Exchange) -> None:
    await exchange.close()


async def cut(exchange: Exchange) -> None:
    """Drop the connection: before any byte."""
    await exchange.reset()


async def kill(exchange: Exchange) -> None:
    """The request kills the server that it reaches."""
    exchange.server.kill()


async def stream_a_token(exchange: Exchange) -> None:
    """Begin a stream and go on with it never."""
    await exchange.say(STREAM_HEAD + sse(token()))


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Request:
    """A request as it came in."""

    sample: int
    connection: int
    body: bytes


class ScriptedServer:
    """script: what becomes of samples. health, models: the answers of the control plane, None to hang.

    requests: all that came for samples, in order. n_probes: how often its health was asked for.

    Its port is its own until `stop`: a second socket keeps it bound, so that nobody else's server answers in
    the place of a killed one.
    """

    def __init__(self, script: Script = serve_well, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.health: bytes | None = HEALTHY
        self.models: bytes | None = MODELS
        self.requests: list[Request] = []
        self.n_connections = self.n_probes = 0
        self._port_holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port_holder.bind(("127.0.0.1", 0))
        self.port = self._port_holder.getsockname()[1]
        self._tls = tls
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def samples(self) -> list[int]:
        """The samples that were asked for, in order."""
        return [request.sample for request in self.requests]

    async def start(self) -> None:
        """Listen; after a `kill`, on the same port again."""
        self._listener = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._tls, reuse_port=True
        )

    def kill(self) -> None:
        """Be gone at once, as after SIGKILL: nobody listens, every connection is reset."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._connections.values():
            reset(writer)

    async def stop(self) -> None:
        """End everything."""
        self.kill()
        self._port_holder.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        if self._listener is None:
            reset(writer)  # accepted in the moment of its death
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, on_connection = self.n_connections, 0
        self.n_connections += 1
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b" ", 2)
            if method == b"GET":
                await self._control(path, writer)
                continue
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            exchange = Exchange(self, writer, body, len(self.requests), on_connection)
            self.requests.append(Request(exchange.sample, connection, body))
            on_connection += 1
            await self.script(exchange)

    async def _control(self, path: bytes, writer: asyncio.StreamWriter) -> None:
        if path == b"/health":
            self.n_probes += 1
        answer = self.health if path == b"/health" else self.models
        if answer is None:
            await asyncio.Event().wait()
        else:
            writer.write(answer)
            writer.close()
