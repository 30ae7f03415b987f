"""Commands and pools of the end-to-end tests; whatever a test has started is ended with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_servers import Servers
from lbrun_process import Lbrun


@pytest.fixture
def lbrun(tmp_path: Path) -> Iterator[Lbrun]:
    """Runs commands in a folder of the test's own."""
    command = Lbrun(tmp_path)
    yield command
    command.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Servers]]:
    """Starts a pool that the test may break."""
    started: list[Servers] = []

    def start(**settings: Any) -> Servers:
        servers = Servers(tmp_path / f"servers-{len(started)}", **settings)
        started.append(servers)
        return servers

    yield start
    for servers in started:
        servers.stop()


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Servers]]:
    """A pool of fast servers of the given kind, started once for all tests: not to be broken."""
    started: dict[tuple[str, str, int], Servers] = {}

    def get(*, model: str = "llama3_1_8b", backend: str = "vllm", count: int = 2) -> Servers:
        key = (model, backend, count)
        if key not in started:
            started[key] = Servers(
                tmp_path_factory.mktemp("servers"),
                model=model,
                backend=backend,
                count=count,
                ttft_base_ms=2.0,
                ttft_per_token_us=0.0,
                tpot_ms=0.5,
            )
        return started[key]

    yield get
    for servers in started.values():
        servers.stop()
