"""Embedded servers in child processes, and a client that shows every byte."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lbrun.embedded.pool import EmbeddedPool
from lbrun.embedded.settings import EmbeddedSettings

CAPTURES = Path(__file__).parents[1] / "captures"


@dataclass(frozen=True)
class Received:
    """All that came over one connection. end: "eof", "reset", "timeout", or "enough" where that was asked."""

    raw: bytes
    end: str

    @property
    def head(self) -> list[str]:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def status(self) -> int:
        return int(self.head[0].split()[1])

    @property
    def header_names(self) -> list[str]:
        return [line.split(":")[0] for line in self.head[1:]]

    def header(self, name: str) -> str:
        return next(line.partition(": ")[2] for line in self.head[1:] if line.startswith(name + ":"))

    @property
    def chunked(self) -> bool:
        return "transfer-encoding: chunked" in self.head

    @property
    def body(self) -> bytes:
        body = self.raw.partition(b"\r\n\r\n")[2]
        return b"".join(self.chunks) if self.chunked else body

    @property
    def chunks(self) -> list[bytes]:
        """The chunks as they were framed; a last one that is cut short comes as it is."""
        rest, chunks = self.raw.partition(b"\r\n\r\n")[2], []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                break
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return chunks

    @property
    def ended_well(self) -> bool:
        """The HTTP message is complete."""
        if self.chunked:
            return self.raw.endswith(b"0\r\n\r\n")
        return len(self.body) == int(self.header("content-length"))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, [DONE] as the string it is."""
        texts = [e.removeprefix("data: ") for e in self.body.decode().split("\n\n") if e]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]


@dataclass(frozen=True)
class Server:
    """One running server."""

    url: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def send_raw(self, request: bytes, timeout_s: float = 5.0, enough: int = 1 << 30) -> Received:
        """Send bytes as they are, and read until the server ends the connection, or `enough` bytes."""
        received = bytearray()
        with socket.create_connection(self.address, timeout_s) as connection:
            connection.sendall(request)
            try:
                while data := connection.recv(65536):
                    received += data
                    if len(received) >= enough:
                        return Received(bytes(received), "enough")
            except ConnectionResetError:
                return Received(bytes(received), "reset")
            except TimeoutError:
                return Received(bytes(received), "timeout")
        return Received(bytes(received), "eof")

    def post(
        self, path: str, body: object, timeout_s: float = 5.0, enough: int = 1 << 30, **headers: str
    ) -> Received:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", "connection": "close", **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\n{lines}content-length: {len(content)}\r\n\r\n"
        return self.send_raw(head.encode() + content, timeout_s, enough)

    def get(self, path: str) -> Received:
        return self.send_raw(f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode())

    def have_faults(self, *faults: str) -> None:
        answer = self.post("/__faults__", {"faults": list(faults)})
        assert answer.status == 200, answer.body

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's lines that carry these labels."""
        lines = re.findall(rf"^{name}\{{(.*)\}} (.*)$", self.get("/metrics").body.decode(), re.MULTILINE)
        wanted = [f'{k}="{v}"' for k, v in labels.items()]
        return sum(float(value) for pairs, value in lines if all(w in pairs for w in wanted))


def wait_until(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `done`, and fail after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.005)


def answers(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def is_up() -> Callable[[str], bool]:
    return answers


@pytest.fixture(scope="session")
def captured() -> Callable[[str, str], tuple[bytes, Received]]:
    """A captured request, and what a real server answered."""

    def load(vendor: str, name: str) -> tuple[bytes, Received]:
        request = (CAPTURES / vendor / f"{name}.request.bin").read_bytes()
        return request, Received((CAPTURES / vendor / f"{name}.response.bin").read_bytes(), "eof")

    return load


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start one fast server with the given settings; it is ended with the session."""
    pools: list[EmbeddedPool] = []

    def start(**settings: Any) -> Server:
        fast = {"ttft_base_ms": 1.0, "ttft_per_token_us": 0.0, "tpot_ms": 0.2}
        pool = EmbeddedPool(EmbeddedSettings(count=1, **{**fast, **settings}), tmp_path_factory.mktemp("log"))
        pools.append(pool)
        (url,) = pool.start()
        wait_until(lambda: answers(url))
        return Server(url)

    yield start
    for pool in pools:
        pool.stop()


TINY = {"max_model_len": 2048, "vocab_size": 512}


@pytest.fixture(scope="session")
def _vllm(serve: Callable[..., Server]) -> Server:
    return serve(backend="vllm", model="tiny", **TINY)


@pytest.fixture(scope="session")
def _vllm_vl(serve: Callable[..., Server]) -> Server:
    return serve(backend="vllm", model="tinyvl", **TINY)


@pytest.fixture(scope="session")
def _sglang(serve: Callable[..., Server]) -> Server:
    return serve(backend="sglang", model="tiny", **TINY)


@pytest.fixture
def vllm(_vllm: Server) -> Iterator[Server]:
    """A vLLM server like the one that was captured; faults are off after each test."""
    yield _vllm
    _vllm.have_faults()


@pytest.fixture
def vllm_vl(_vllm_vl: Server) -> Server:
    return _vllm_vl


@pytest.fixture
def sglang(_sglang: Server) -> Iterator[Server]:
    """An SGLang server like the one that was captured; faults are off after each test."""
    yield _sglang
    _sglang.have_faults()


@pytest.fixture(params=["vllm", "sglang"])
def either(request: pytest.FixtureRequest) -> Server:
    """Each backend in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server
