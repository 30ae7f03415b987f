"""The ASGI application of one embedded server: routes, generations, faults.

Written against ASGI itself rather than a framework's router, because the servers share the machine with the
client that is being measured: what they burn, it does not have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
from starlette.types import Receive, Scope, Send

from lbrun.embedded.answers import Answer
from lbrun.embedded.backend import DONE, Asked, Backend, Generation, encode
from lbrun.embedded.breakage import die_politely, instead_of_answer, spoil_stream, spoil_whole
from lbrun.embedded.engine import ClientGoneError, Engine, EngineDeadError, Ticket
from lbrun.embedded.exchange import EVENT_STREAM, Exchange, RefusalError, Reply
from lbrun.embedded.faults import (
    BEFORE_ANSWER,
    IN_ANSWER,
    OF_CONTENT,
    OF_DELIVERY,
    OF_HEALTH,
    Fault,
    FaultKind,
    FaultSwitch,
    parse_fault,
)
from lbrun.embedded.journal import Journal
from lbrun.embedded.latency import LatencyModel, Pace
from lbrun.embedded.lies import Lying, Twice
from lbrun.embedded.metrics import ServerMetrics
from lbrun.embedded.requests import OutOfVocabularyError
from lbrun.embedded.settings import ServerSettings
from lbrun.embedded.sglang import SglangBackend
from lbrun.embedded.trickle import Trickle
from lbrun.embedded.vllm import VllmBackend

FAULTS_PATH = "/__faults__"

_BACKENDS: dict[str, type[VllmBackend] | type[SglangBackend]] = {
    "vllm": VllmBackend,
    "sglang": SglangBackend,
}
_NOT_FOUND = Reply(404, b'{"detail":"Not Found"}')
_LOADING = Reply(503, content_type=None)
_OTHER_MODEL = "another/model"


class EmbeddedApp:
    """One server. Must be made on the event loop that will run it.

    die: call it to end the server; open generations are failed in the backend's manner.
    """

    def __init__(self, settings: ServerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._engine = Engine(
            loop, LatencyModel.of(settings), settings.slots, ServerMetrics(settings.backend)
        )
        self._backend: Backend = _BACKENDS[settings.backend](settings, self._engine)
        self._model = settings.model
        self._coalesce = settings.coalesce
        self._faults = FaultSwitch(settings.faults, loop.time())
        self._journal = Journal(Path(settings.journal)) if settings.journal else None
        self._n_asked = 0  # generations, since the faults were switched
        self._previous: Answer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        path, method = scope["path"], scope["method"]
        body = await exchange.body()
        wrong = self._faults.strike((FaultKind.WRONG_MODEL,), self._loop.time())
        self._backend.model = _OTHER_MODEL if wrong else self._model
        try:
            if path in self._backend.generations and method == "POST":
                await self._generate(exchange, path, body)
            else:
                await exchange.reply(self._control(path, method, body))
        except RefusalError as refusal:
            await _refuse(exchange, refusal.reply)
        except ClientGoneError:
            pass

    def die(self) -> None:
        """Fail whatever is open."""
        self._engine.die()

    def _control(self, path: str, method: str, body: bytes) -> Reply:
        if path == FAULTS_PATH:
            return self._switch_faults(method, body)
        if path in self._backend.health_paths:
            fault = self._faults.strike(OF_HEALTH, self._loop.time())
            if fault is not None:
                return _LOADING
        handlers = self._backend.control.get(path)
        if handlers is not None and method in handlers:
            return handlers[method](body)
        if handlers is None and path not in self._backend.generations:
            return _NOT_FOUND
        allowed = ", ".join(sorted(handlers or ("POST",))).encode()
        return Reply(405, b'{"detail":"Method Not Allowed"}', headers=((b"allow", allowed),))

    def _switch_faults(self, method: str, body: bytes) -> Reply:
        """GET lists the faults, POST {"faults": ["KIND...", ...]} replaces them, DELETE removes them."""
        if method == "POST":
            try:
                wanted = msgspec.json.decode(body, type=dict[str, list[str]]).get("faults", [])
                self._faults.set([parse_fault(text) for text in wanted], self._loop.time())
                self._n_asked = 0
            except (msgspec.MsgspecError, ValueError) as error:
                return Reply(400, encode({"error": str(error)}))
        elif method == "DELETE":
            self._faults.set((), self._loop.time())
        elif method != "GET":
            return Reply(405, headers=((b"allow", b"DELETE, GET, POST"),))
        return Reply(body=encode({"faults": [fault.without_server() for fault in self._faults.faults]}))

    async def _generate(self, exchange: Exchange, path: str, body: bytes) -> None:
        request_id = exchange.header(b"x-request-id")
        asked = Asked(
            body, exchange.header(b"content-type"), request_id.decode("latin-1") if request_id else None
        )
        try:
            generation = self._backend.generations[path](asked)
        except OutOfVocabularyError:
            if self._faults.strike((FaultKind.POISON,), self._loop.time()) is not None:
                _die_at_once()
            raise
        now_s = self._loop.time()
        self._note_request(generation, now_s)
        fault = self._faults.strike(BEFORE_ANSWER, now_s)
        if fault is not None:
            await instead_of_answer(
                fault, exchange, self._backend, stream=generation.stream, token=self._token_of(generation)
            )
            return
        if self._faults.strike((FaultKind.ANSWER_OF_ANOTHER,), now_s) is not None:
            generation.answer, self._previous = self._previous or generation.answer, generation.answer
        content = self._faults.strike(OF_CONTENT, now_s)
        if content is not None:
            exchange.deliver_by(
                lambda send: (
                    Twice(exchange, send, content)
                    if content.kind is FaultKind.ANSWER_TWICE
                    else Lying(send, content)
                )
            )
        spoiled = self._faults.strike(IN_ANSWER, now_s)
        delivery = self._faults.strike(OF_DELIVERY, now_s)
        if delivery is not None:
            exchange.deliver_by(lambda send: Trickle(exchange, delivery))
        try:
            ticket = self._engine.admit(
                generation.n_prompt, len(generation.answer), generation.luck, self._faults.slowness(now_s)
            )
        except EngineDeadError:
            await self._say_goodbye(exchange)
            return
        exchange.connection.on_lost = ticket.client_gone
        reason = "abort"
        try:
            if generation.stream:
                await self._stream(exchange, generation, ticket, spoiled)
            else:
                await self._whole(exchange, generation, ticket, spoiled)
            reason = "error" if spoiled else generation.answer.finish_reason
            if self._journal is not None and not spoiled:
                self._journal.answered(generation.answer.ids)
        except EngineDeadError:
            reason = "error"
            await self._say_goodbye(exchange)
        finally:
            exchange.connection.on_lost = None
            self._engine.release(ticket, reason, generation.stream)

    def _note_request(self, generation: Generation, now_s: float) -> None:
        if self._journal is not None:
            self._journal.asked(generation.answer.ids)
        self._n_asked += 1
        crash = self._faults.strike((FaultKind.CRASH,), now_s)
        if crash is not None and self._n_asked >= int(crash.value):
            _die_at_once()

    def _token_of(self, generation: Generation) -> Callable[[], bytes]:
        """Makes the event of a token that is never the last one."""
        ticket = Ticket(self._loop, Pace(0.0, 0.0), generation.n_prompt, len(generation.answer))
        return lambda: generation.tokens(0, 1, ticket, self._engine)

    async def _whole(
        self, exchange: Exchange, generation: Generation, ticket: Ticket, spoiled: Fault | None
    ) -> None:
        await ticket.until(ticket.n_out - 1)
        ticket.n_emitted = ticket.n_out
        body = generation.whole(ticket, self._engine)
        if spoiled is not None:
            await spoil_whole(spoiled, exchange, self._backend, body)
        else:
            await exchange.reply(Reply(body=body))

    async def _stream(
        self, exchange: Exchange, generation: Generation, ticket: Ticket, spoiled: Fault | None
    ) -> None:
        # a spoiled stream has at least one token, except where one is all there is
        n = ticket.n_out if spoiled is None else ticket.n_out // 2
        if generation.head_at_once:
            await exchange.open_stream()
        at = 0
        while at < n:
            await ticket.until(at)
            if at == 0:
                await self._open(exchange, generation)
            end = min(n, ticket.n_due(at)) if self._coalesce else at + 1
            event = generation.tokens(at, end, ticket, self._engine)
            if event:
                await exchange.event(event)
            ticket.n_emitted = at = end
        if spoiled is not None:
            if n == 0:
                await self._open(exchange, generation)
            following = generation.tokens(n, n + 1, ticket, self._engine)
            await spoil_stream(spoiled, exchange, self._backend, following)
            return
        for event in generation.closing():
            await exchange.event(event)
        await exchange.end_stream()

    async def _open(self, exchange: Exchange, generation: Generation) -> None:
        if not exchange.stream_open:
            await exchange.open_stream()
        opening = generation.opening()
        if opening:
            await exchange.event(opening)

    async def _say_goodbye(self, exchange: Exchange) -> None:
        if self._backend.dies_politely:
            await die_politely(exchange, self._backend)
        else:
            await exchange.until_lost()


async def _refuse(exchange: Exchange, reply: Reply) -> None:
    if reply.content_type != EVENT_STREAM:
        await exchange.reply(reply)
        return
    await exchange.open_stream()
    await exchange.event(reply.body.removesuffix(DONE))
    await exchange.event(DONE)
    await exchange.end_stream()


def _die_at_once() -> NoReturn:
    # as a real server crashes: no answer, no goodbye, every connection closed by the kernel
    os._exit(1)
