"""A pool with a clock of its own, and loopback servers that answer a script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from lbrun.balance import HealthPolicy, Pool, PoolSettings, ProbeOutcome, Strategy, Transition, make_strategy
from lbrun.balance.states import DueProbe


@dataclass
class Bench:
    """A pool under test, driven by hand."""

    pool: Pool
    now_s: float = 100.0
    transitions: list[Transition] = field(default_factory=list)
    rooms: int = 0

    def __post_init__(self) -> None:
        self.pool.on_transition.append(self.transitions.append)
        self.pool.on_room.append(self._room)

    def _room(self) -> None:
        self.rooms += 1

    def pass_time(self, seconds: float, answer: Callable[[DueProbe], ProbeOutcome] | None = None) -> None:
        """Tick ten times a second; probes are answered at once, or not at all without an answer."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            self.now_s = min(end_s, self.now_s + 0.1)
            self.pool.tick(self.now_s)
            if answer is not None:
                self.probe(answer)

    def probe(self, answer: Callable[[DueProbe], ProbeOutcome]) -> None:
        for probe in self.pool.due_probes(self.now_s):
            outcome = answer(probe)
            self.pool.probe_result(probe, outcome, f"probe says {outcome}", self.now_s)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> MakeBench:
    """Make a pool of n servers, ready unless said otherwise; further arguments go into the policy."""

    def make(
        n: int = 3,
        strategy: str | Strategy = "round_robin",
        *,
        ready: bool = True,
        max_in_flight: int | None = None,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        **policy: float,
    ) -> Bench:
        settings = PoolSettings(
            [f"http://server-{server}:8000" for server in range(n)],
            max_in_flight=max_in_flight,
            weights=weights,
            policy=replace(HealthPolicy(), **policy),
        )
        chosen = make_strategy(strategy, seed=seed) if isinstance(strategy, str) else strategy
        bench = Bench(Pool(settings, chosen, now_s=100.0))
        if ready:
            bench.pass_time(1.0, lambda probe: ProbeOutcome.OK)
            bench.transitions.clear()
            bench.rooms = 0
        return bench

    return make


Reply = Callable[[str], bytes | None]


@contextlib.asynccontextmanager
async def serve(reply: Reply) -> AsyncIterator[str]:
    """A server on loopback: `reply` maps a request's path to the raw answer; None hangs, b"" hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            answer = reply(head.split(b" ", 2)[1].decode())
            if answer is None:
                await reader.read()  # until the client gives up
            else:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def http(status: int, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.fixture
def serve_replies() -> Callable[[Reply], contextlib.AbstractAsyncContextManager[str]]:
    return serve


@pytest.fixture
def http_answer() -> Callable[..., bytes]:
    return http
