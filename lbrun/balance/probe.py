"""Health probes: ``GET /health``, ``GET /v1/models``, and what else a server tells of its model."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from lbrun.attempt import FailureKind
from lbrun.balance.models import Fact, ModelInfo, judge_models
from lbrun.balance.states import ProbeOutcome
from lbrun.transport.endpoint import make_endpoint, make_ssl_context
from lbrun.transport.fetch import Fetched, Fetcher, FetchError, FetchSession

_LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_NO_SUCH_PATH = frozenset({404, 405, 501})
_TICK_S = 0.1
_MOST_S = 5.0  # so many times its timeout a probe may last in all

NOBODY_LISTENS = "connection refused"
"""The detail of a probe whose connection the server's machine refused."""


class _Page(NamedTuple):
    """Where a backend tells more than its model list does. fields: that are kept, under their own names.

    older_path: of releases that lack the path. is_costly: not to be asked while the server has work.
    """

    path: str
    fields: tuple[str, ...]
    older_path: str = ""
    is_costly: bool = False


_PAGES: Mapping[str, tuple[_Page, ...]] = {
    "vllm": (_Page("/version", ("version",)),),
    "sglang": (
        _Page("/model_info", ("model_path", "tokenizer_path", "weight_version"), "/get_model_info"),
        _Page("/server_info", ("version",), "/get_server_info", is_costly=True),  # 37 KB, by the scheduler
    ),
}


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How servers are probed.

    backend: ``vllm``, ``sglang`` or ``openai``. model: the name it should serve. timeout_s: for the health
    request, and for all others of a probe together. health_path: None for ``/health``, and ``/v1/models``
    where an ``openai`` server has no such path. headers, api_key: sent with each probe. ssl_context: None for
    the system's own; never unverified. redact: takes secrets out of what a server says.
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
    """What a probe found. detail: the same in words. model: what the server said of its model, if it was
    asked.

    healthy: the health path answered well, whatever came of the model list.
    """

    outcome: ProbeOutcome
    detail: str
    model: ModelInfo | None = None
    healthy: bool = False


class Prober:
    """Probes the servers of a pool. An async context manager, though it holds no connection between probes.

    urls: base URLs by server index; a path prefix is kept, a trailing ``/v1`` is folded away. Each probe
    connects anew: whether the server accepts connections is half of the question.
    """

    def __init__(self, urls: Sequence[str], settings: ProbeSettings) -> None:
        self._settings = settings
        endpoints = [
            make_endpoint(url, "/", headers=settings.headers, api_key=settings.api_key) for url in urls
        ]
        tls = settings.ssl_context or make_ssl_context()
        # the limit is `_OwnTime`'s; the next probe after one that was cut off tries another of the addresses
        connect_s = settings.timeout_s * _MOST_S
        self._fetchers = [Fetcher(endpoint, tls, connect_s) for endpoint in endpoints]
        self._pages = _PAGES.get(settings.backend, ())

    async def __aenter__(self) -> Prober:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing is held between probes."""

    async def probe(self, server: int, *, with_model: bool = False) -> ProbeResult:
        """Ask for the server's health and, if healthy, for its model. Never raises for the server's doing."""
        async with self._fetchers[server].session() as session:
            health = await self._ask_health(session)
            if not with_model or health.outcome is not ProbeOutcome.OK:
                return self._told(health)
            return self._told((await self._ask_model(session, costly=True))._replace(healthy=True))

    async def check_health(self, server: int) -> ProbeResult:
        """Ask the health path: 200 is OK, 503 is LOADING, all else is an error."""
        return await self.probe(server)

    async def check_model(self, server: int) -> ProbeResult:
        """Ask a server that is in service what it serves, at next to no cost to it; see `judge_models`."""
        async with self._fetchers[server].session() as session:
            return self._told(await self._ask_model(session, costly=False))

    def _told(self, result: ProbeResult) -> ProbeResult:
        """The result without secrets: a server may quote what it was sent, and details are logged."""
        redact, info = self._settings.redact, result.model
        if info is not None:
            facts = {
                name: redact(value) if isinstance(value, str) else value for name, value in info.facts.items()
            }
            info = info._replace(listed=tuple(map(redact, info.listed)), note=redact(info.note), facts=facts)
        return result._replace(detail=redact(result.detail), model=info)

    async def _ask_health(self, session: FetchSession) -> ProbeResult:
        path = self._settings.health_path or "/health"
        answer = await self._get(session, path)
        may_lack_path = self._settings.health_path is None and self._settings.backend == "openai"
        if may_lack_path and isinstance(answer, Fetched) and answer.status in _NO_SUCH_PATH:
            # /health is no part of the OpenAI API; even a model list that fails shows a living server
            path = "/v1/models"
            answer = await self._get(session, path)
            if isinstance(answer, Fetched) and answer.status in {500, *_NO_SUCH_PATH}:
                return ProbeResult(ProbeOutcome.OK, f"{answer.status} to {path}", healthy=True)
        if isinstance(answer, ProbeResult):
            return answer
        if answer.status == 200:
            return ProbeResult(ProbeOutcome.OK, "healthy", healthy=True)
        if answer.status == 503:
            return ProbeResult(ProbeOutcome.LOADING, f"503 to {path}: loading or shutting down")
        return ProbeResult(ProbeOutcome.ERROR, f"{answer.status} to {path}")

    async def _ask_model(self, session: FetchSession, *, costly: bool) -> ProbeResult:
        """The model list, and the backend's other pages with the time that is left. costly: all of them."""
        loop, settings = asyncio.get_running_loop(), self._settings
        end_s = loop.time() + settings.timeout_s
        answer = await self._get(session, "/v1/models")
        if isinstance(answer, ProbeResult):
            return answer
        verdict = judge_models(answer.status, answer.body, model=settings.model, backend=settings.backend)
        info = verdict.info
        if info is not None and info.facts:
            facts = dict(info.facts)
            for page in self._pages:
                left_s = end_s - loop.time()
                if left_s > 0 and (costly or not page.is_costly):
                    facts |= await self._read_page(session, page, left_s)
            info = info._replace(facts=facts)
        return ProbeResult(verdict.outcome, verdict.detail, info)

    async def _read_page(self, session: FetchSession, page: _Page, timeout_s: float) -> dict[str, Fact]:
        """The page's fields; None for those that the server does not tell, none if it cannot be read."""
        answer = await self._get(session, page.path, timeout_s)
        if page.older_path and isinstance(answer, Fetched) and answer.status in _NO_SUCH_PATH:
            answer = await self._get(session, page.older_path, timeout_s)
        if isinstance(answer, ProbeResult) or answer.status not in {200, *_NO_SUCH_PATH}:
            return {}
        try:
            document = json.loads(answer.body) if answer.status == 200 else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            document = {}
        told = {name: document.get(name) for name in page.fields}
        return {name: value if isinstance(value, str | int) else None for name, value in told.items()}

    async def _get(
        self, session: FetchSession, path: str, timeout_s: float | None = None
    ) -> Fetched | ProbeResult:
        """The answer, or what stood in its way."""
        timeout_s = self._settings.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s) as limit:
                with _OwnTime(limit, timeout_s):
                    return await session.get(path)
        except TimeoutError:
            return ProbeResult(ProbeOutcome.TIMEOUT, f"no answer to {path} within {timeout_s:g} s")
        except (FetchError, OSError) as error:
            return _diagnose(error, path)


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


def _diagnose(error: FetchError | OSError, path: str) -> ProbeResult:
    """What there is instead of an answer; httpx keeps the cause below layers of its own exceptions."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
            return ProbeResult(ProbeOutcome.ERROR, f"TLS: {reason}")
        if isinstance(cause, socket.gaierror):
            return ProbeResult(ProbeOutcome.ERROR, f"the name does not resolve: {cause.strerror}")
        if isinstance(cause, ConnectionRefusedError):
            return ProbeResult(ProbeOutcome.REFUSED, NOBODY_LISTENS)
        if isinstance(cause, OSError) and cause.errno in _LOCAL_ERRNOS:
            return ProbeResult(ProbeOutcome.LOCAL, f"this machine cannot connect: {cause.strerror}")
    what = f"no answer to {path}: {error}"
    if isinstance(error, OSError):
        return ProbeResult(ProbeOutcome.ERROR, what)
    return ProbeResult(_OUTCOMES.get(error.kind, ProbeOutcome.ERROR), what)


_OUTCOMES = {
    FailureKind.CONNECT_TIMEOUT: ProbeOutcome.TIMEOUT,
    FailureKind.LOCAL: ProbeOutcome.LOCAL,
    FailureKind.LOST_BEFORE_BYTE: ProbeOutcome.REFUSED,  # nobody is there, unlike an answer that is no HTTP
}


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
