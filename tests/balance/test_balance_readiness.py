"""Waiting for servers that come up, do not, or serve the wrong model; over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest

from lbrun.balance import HealthPolicy, Pool, PoolSettings, ServerState, make_strategy, readiness
from lbrun.balance.models import ModelInfo
from lbrun.balance.monitor import Monitor
from lbrun.balance.probe import Prober, ProbeSettings
from lbrun.balance.readiness import ReadinessSettings, wait_until_ready
from lbrun.errors import RunFailed

Reply = Callable[[str], bytes | None]
Serve = Callable[[Reply], AbstractAsyncContextManager[str]]
Http = Callable[..., bytes]


def pool_of(urls: Sequence[str], ready_timeout_s: float = 5.0) -> Pool:
    policy = HealthPolicy(
        ready_timeout_s=ready_timeout_s,
        probe_interval_s=0.05,
        confirm_gap_s=0.02,
        late_join_interval_s=0.05,
        backoff_base_s=0.05,
    )
    loop = asyncio.get_running_loop()
    return Pool(PoolSettings(urls, policy=policy), make_strategy("round_robin"), now_s=loop.time())


def probe_settings() -> ProbeSettings:
    return ProbeSettings("vllm", "tiny", timeout_s=1.0)


def free_url() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def healthy(http_answer: Http) -> Reply:
    return lambda path: http_answer(200, b'{"data": [{"id": "tiny", "max_model_len": 2048}]}')


async def ready(pool: Pool, **settings: float) -> Mapping[int, ModelInfo]:
    async with Prober(pool.urls, probe_settings()) as prober:
        return await wait_until_ready(
            pool,
            prober,
            ReadinessSettings(**{"settle_s": 0.2, **settings}),  # type: ignore[arg-type]
        )


async def until(condition: Callable[[], bool], bound_s: float = 10.0) -> None:
    async with asyncio.timeout(bound_s):
        while not condition():
            await asyncio.sleep(0.01)


def test_all_servers_ready(serve_replies: Serve, healthy: Reply, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serve_replies(healthy)) for _ in range(3)]
            pool = pool_of(urls)
            models = await ready(pool, settle_s=60.0)
            assert [pool.state(server) for server in range(3)] == [ServerState.READY] * 3
            assert pool.eligible == [0, 1, 2]
            assert {info.max_model_len for info in models.values()} == {2048}
            assert set(models) == {0, 1, 2}
            assert pool.on_transition == []

    with caplog.at_level(logging.INFO, "lbrun.balance"):
        asyncio.run(run())
    assert sum("ready (lists tiny; context of 2,048 tokens)" in line for line in caplog.messages) == 3


def test_a_server_that_loads_for_a_while_is_waited_for(
    serve_replies: Serve, healthy: Reply, http_answer: Http
) -> None:
    answers = iter([http_answer(503)] * 4)

    async def run() -> None:
        async with serve_replies(lambda path: next(answers, None) or healthy(path)) as url:
            pool = pool_of([url])
            await ready(pool)
            assert pool.state(0) is ServerState.READY

    asyncio.run(run())


def test_one_server_down_does_not_hold_up_the_others_for_longer_than_the_settling(
    serve_replies: Serve, healthy: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with serve_replies(healthy) as url:
            pool = pool_of([free_url(), url], ready_timeout_s=600.0)
            async with asyncio.timeout(30):
                models = await ready(pool)
            assert [pool.state(0), pool.state(1)] == [ServerState.EXCLUDED, ServerState.READY]
            assert set(models) == {1}
            assert pool.last_error[0] == "not ready: connection refused"

    with caplog.at_level(logging.INFO, "lbrun.balance"):
        asyncio.run(run())
    assert any("excluded: not ready: connection refused" in line for line in caplog.messages)


def test_no_server_ready_says_what_each_of_them_said(serve_replies: Serve, http_answer: Http) -> None:
    async def run() -> None:
        async with serve_replies(lambda path: http_answer(503)) as loading:
            refusing = free_url()
            with pytest.raises(RunFailed) as caught:
                await ready(pool_of([refusing, loading], ready_timeout_s=0.6))
            assert str(caught.value).splitlines() == [
                "No API servers became ready within 0.6 s:",
                f"  {refusing}: connection refused",
                f"  {loading}: 503 to /health: loading or shutting down",
            ]

    asyncio.run(run())


def test_what_servers_say_that_are_not_ready_is_told_while_they_are_waited_for(
    serve_replies: Serve, healthy: Reply, http_answer: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.0)
    told: list[tuple[int, str]] = []

    async def run() -> None:
        async with serve_replies(healthy) as url, serve_replies(lambda path: http_answer(503)) as loading:
            pool = pool_of([url, free_url(), loading])
            async with Prober(pool.urls, probe_settings()) as prober:
                await wait_until_ready(
                    pool,
                    prober,
                    ReadinessSettings(settle_s=0.4),
                    on_word=lambda server, word: told.append((server, word)),
                )

    asyncio.run(run())
    assert sorted(told) == [(1, "connection refused"), (2, "503 to /health: loading or shutting down")]


def test_servers_that_come_up_at_once_are_not_worth_a_word(serve_replies: Serve, http_answer: Http) -> None:
    told: list[str] = []

    async def run() -> None:
        async with serve_replies(lambda path: http_answer(503)) as loading:
            pool = pool_of([loading], ready_timeout_s=0.4)
            async with Prober(pool.urls, probe_settings()) as prober:
                with pytest.raises(RunFailed):
                    await wait_until_ready(
                        pool, prober, ReadinessSettings(), on_word=lambda _, word: told.append(word)
                    )

    asyncio.run(run())
    assert told == []


def test_the_wrong_model_everywhere_ends_the_waiting_at_once(serve_replies: Serve, http_answer: Http) -> None:
    async def run() -> None:
        other = http_answer(200, b'{"data": [{"id": "other"}]}')
        async with serve_replies(lambda path: other) as url:
            with pytest.raises(RunFailed) as caught:
                async with asyncio.timeout(30):
                    await ready(pool_of([url], ready_timeout_s=600.0))
            assert str(caught.value).splitlines() == [
                "No API servers became ready:",
                f"  {url}: lists 'other', not 'tiny'; if that is the model, "
                f"write 'servers.served_model=other'",
            ]

    asyncio.run(run())


def test_fewer_servers_than_min_ready_fail_the_run(serve_replies: Serve, healthy: Reply) -> None:
    async def run() -> None:
        async with serve_replies(healthy) as url:
            with pytest.raises(
                RunFailed, match=r"Only 1 of 2 .* within 0.8 s; servers.min_ready is 2:\n  http"
            ):
                await ready(pool_of([url, free_url()], ready_timeout_s=0.8), min_ready=2)

    asyncio.run(run())


def test_waiting_can_be_cancelled_and_leaves_no_task(serve_replies: Serve, http_answer: Http) -> None:
    async def run() -> None:
        async with serve_replies(lambda path: None) as url:
            pool = pool_of([url])
            waiting = asyncio.create_task(ready(pool))
            await until(lambda: pool.next_probe_s() == float("inf"))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "lbrun-monitor" not in names

    asyncio.run(run())


def test_a_server_that_comes_up_later_joins_during_the_run(serve_replies: Serve, healthy: Reply) -> None:
    async def run() -> None:
        up = asyncio.Event()
        async with (
            serve_replies(healthy) as first,
            serve_replies(lambda path: healthy(path) if up.is_set() else b"") as late,
        ):
            pool = pool_of([first, late])
            await ready(pool)
            assert pool.state(1) is ServerState.EXCLUDED
            async with Prober(pool.urls, probe_settings()) as prober:
                monitor = Monitor(pool, prober)
                monitor.start()
                up.set()
                await until(lambda: pool.state(1) is ServerState.READY)
                await monitor.stop()

    asyncio.run(run())
