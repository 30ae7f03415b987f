"""Asking a server how it is: ``GET /health`` and ``GET /v1/models`` over httpx."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import httpx

from lbrun.balance.models import ModelInfo, judge_models
from lbrun.balance.states import ProbeOutcome

_MAX_BODY_BYTES = 1 << 20  # a model list has a few KB
_LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_NO_SUCH_PATH = frozenset({404, 405, 501})
_TICK_S = 0.1
_MOST_S = 5.0  # so many times its timeout a probe may last in all


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How servers are probed.

    backend: ``vllm``, ``sglang`` or ``openai``. model: the name it should serve. timeout_s: for the whole of
    one request. health_path: None for ``/health``, and ``/v1/models`` where an ``openai`` server has no such
    path. headers, api_key: sent with each probe. ssl_context: None for the system's own; never unverified.
    redact: takes secrets out of what a server says.
    """

    backend: str
    model: str
    timeout_s: float = 2.0
    health_path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    redact: Callable[[str], str] = field(default=str, repr=False)


class ProbeResult(NamedTuple):
    """What a probe found. detail: the same in words. model: what the model list said, if it was asked."""

    outcome: ProbeOutcome
    detail: str
    model: ModelInfo | None = None


class _Response(NamedTuple):
    status: int
    body: bytes


class Prober:
    """Probes the servers of a pool. An async context manager, for its HTTP client.

    urls: base URLs by server index; a path prefix is kept, a trailing ``/v1`` is folded away.
    """

    def __init__(self, urls: Sequence[str], settings: ProbeSettings) -> None:
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._settings = settings
        headers = {"Accept-Encoding": "identity", **settings.headers}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        self._client = httpx.AsyncClient(
            verify=settings.ssl_context if settings.ssl_context is not None else True,
            headers=headers,
            timeout=httpx.Timeout(None),  # see `_OwnTime`
            # each probe connects anew: whether the server accepts connections is half of the question
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    async def __aenter__(self) -> Prober:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()

    async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
        """Ask for the server's health and, if healthy, for its model. Never raises for the server's doing."""
        health = await self.check_health(server)
        if not with_model or health.outcome is not ProbeOutcome.OK:
            return health
        return await self.check_model(server)

    async def check_health(self, server: int) -> ProbeResult:
        """Ask the health path: 200 is OK, 503 is LOADING, all else is an error."""
        return self._told(await self._ask_health(server))

    async def check_model(self, server: int) -> ProbeResult:
        """Ask whether the served model is listed; see `judge_models`."""
        return self._told(await self._ask_model(server))

    def _told(self, result: ProbeResult) -> ProbeResult:
        """The result without secrets: a server may quote what it was sent, and details are logged."""
        redact, info = self._settings.redact, result.model
        if info is not None:
            info = info._replace(listed=tuple(map(redact, info.listed)), note=redact(info.note))
        return result._replace(detail=redact(result.detail), model=info)

    async def _ask_health(self, server: int) -> ProbeResult:
        path = self._settings.health_path or "/health"
        answer = await self._get(server, path)
        may_lack_path = self._settings.health_path is None and self._settings.backend == "openai"
        if may_lack_path and isinstance(answer, _Response) and answer.status in _NO_SUCH_PATH:
            # /health is no part of the OpenAI API; even a model list that fails shows a living server
            path = "/v1/models"
            answer = await self._get(server, path)
            if isinstance(answer, _Response) and answer.status in {500, *_NO_SUCH_PATH}:
                return ProbeResult(ProbeOutcome.OK, f"{answer.status} to {path}")
        if isinstance(answer, ProbeResult):
            return answer
        if answer.status == 200:
            return ProbeResult(ProbeOutcome.OK, "healthy")
        if answer.status == 503:
            return ProbeResult(ProbeOutcome.LOADING, f"503 to {path}: loading or shutting down")
        return ProbeResult(ProbeOutcome.ERROR, f"{answer.status} to {path}")

    async def _ask_model(self, server: int) -> ProbeResult:
        answer = await self._get(server, "/v1/models")
        if isinstance(answer, ProbeResult):
            return answer
        settings = self._settings
        verdict = judge_models(answer.status, answer.body, model=settings.model, backend=settings.backend)
        return ProbeResult(verdict.outcome, verdict.detail, verdict.info)

    async def _get(self, server: int, path: str) -> _Response | ProbeResult:
        """The answer, or what stood in its way."""
        timeout_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s) as limit:
                with _OwnTime(limit, timeout_s):
                    return await self._fetch(self._urls[server] + path)
        except (TimeoutError, httpx.TimeoutException):
            return ProbeResult(ProbeOutcome.TIMEOUT, f"no answer to {path} within {timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _diagnose(error, path)

    async def _fetch(self, url: str) -> _Response:
        async with self._client.stream("GET", url) as response:
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MAX_BODY_BYTES:
                    break
            return _Response(response.status_code, bytes(body))


class _OwnTime:
    """Lets a limit count only the time in which this process was not held up: that is not the server's doing.

    Within bounds, or a process that is always late would never find out that a server hangs.
    """

    def __init__(self, limit: asyncio.Timeout, timeout_s: float) -> None:
        self._limit, self._left_s = limit, timeout_s * (_MOST_S - 1.0)
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due_s = self._loop.time() + _TICK_S
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        if self._limit.expired():
            return
        late_s, end_s = min(self._loop.time() - self._due_s, self._left_s), self._limit.when()
        if late_s > 0 and end_s is not None:
            self._left_s -= late_s
            self._limit.reschedule(end_s + late_s)
        self._schedule()


def _diagnose(error: Exception, path: str) -> ProbeResult:
    """Name the cause, which httpx keeps below two layers of its own exceptions."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
            return ProbeResult(ProbeOutcome.ERROR, f"TLS: {reason}")
        if isinstance(cause, socket.gaierror):
            return ProbeResult(ProbeOutcome.ERROR, f"the name does not resolve: {cause.strerror}")
        if isinstance(cause, ConnectionRefusedError):
            return ProbeResult(ProbeOutcome.REFUSED, "connection refused")
        if isinstance(cause, OSError) and cause.errno in _LOCAL_ERRNOS:
            return ProbeResult(ProbeOutcome.LOCAL, f"this machine cannot connect: {cause.strerror}")
    what = f"no answer to {path}: {str(error) or type(error).__name__}"
    # closed or reset without an answer, unlike an answer that is no HTTP
    lost = isinstance(error, (httpx.ReadError, httpx.WriteError)) or "disconnected" in str(error)
    return ProbeResult(ProbeOutcome.REFUSED if lost else ProbeOutcome.ERROR, what)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes, and the members of groups (one for each address tried) among them."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending += cause.exceptions
        pending += [cause.__cause__, cause.__context__]
