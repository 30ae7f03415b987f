"""What each fault does to a request, on the wire.

Three cases: the request is never worked on (`instead_of_answer`), a whole answer is spoiled when it is due
(`spoil_whole`), or a stream is spoiled when half of its tokens are out (`spoil_stream`).

Good answers that come slowly or in odd pieces are in `lbrun.embedded.trickle`.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from functools import cache

from lbrun.embedded.backend import DONE, Backend
from lbrun.embedded.exchange import EVENT_STREAM, Exchange, Reply
from lbrun.embedded.faults import Fault, FaultKind

_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n"
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
_STREAM_HEAD = _CHUNKED_HEAD.replace(b"application/json", b"text/event-stream")
_ENDLESS_BYTES = 256 << 20  # who reads so much of an answer that has no end, reads for ever
_PIECE = b"x" * 65_536
_ENGINE_DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_NOT_SSE = b"\x00\xfe not an event\ndata {no colon}\n\n: comment\ndata: {]\n\n"


def _error_reply(kind: FaultKind, backend: Backend, value: str) -> Reply | None:
    """The answer of a fault that is nothing but a status; None for other faults.

    value: the Retry-After header of a 429, as it is to be sent.
    """
    match kind:
        case FaultKind.STATUS_400:
            return backend.error(400, "This request cannot be served (simulated fault)")
        case FaultKind.STATUS_401:
            return Reply(401, b'{"error":"Unauthorized"}')
        case FaultKind.STATUS_422:
            return Reply(422, b'{"detail":[{"type":"value_error","loc":["body"],"msg":"simulated fault"}]}')
        case FaultKind.STATUS_429:
            headers = ((b"retry-after", value.encode("latin-1")),) if value else ()
            reply = backend.error(429, "Too many requests (simulated fault)", "RateLimitError")
            return reply._replace(headers=headers)
        case FaultKind.STATUS_500 | FaultKind.HEALTH_OK_COMPLETIONS_FAIL:
            return backend.error(500, _ENGINE_DIED, "InternalServerError")
        case FaultKind.STATUS_503_LOADING:
            return Reply(503, content_type=None)
        case FaultKind.REDIRECT:
            return Reply(307, content_type=None, headers=((b"location", b"/elsewhere"),))
        case FaultKind.STATUS:
            status, _, retry_after = value.partition(";")
            reply = backend.error(int(status), f"status {status} (simulated fault)")
            headers = ((b"retry-after", retry_after.encode("latin-1")),) if retry_after else ()
            return reply._replace(headers=headers)
        case _:
            return None


async def instead_of_answer(
    fault: Fault, exchange: Exchange, backend: Backend, *, stream: bool, token: Callable[[], bytes]
) -> None:
    """Answer a request as the fault has it. The request is never given to the engine.

    token: makes the event of a token, for streams without end.
    """
    reply = _error_reply(fault.kind, backend, fault.value)
    if reply is not None:
        await exchange.reply(reply)
        return
    match fault.kind:
        case FaultKind.HANG_BEFORE_HEADERS:
            await exchange.until_lost()
        case FaultKind.RESET_BEFORE_HEADERS:
            exchange.connection.reset()
            await exchange.until_lost()
        case FaultKind.ERROR_IN_200 if stream:
            await exchange.open_stream()
            await exchange.event(backend.error_event(_ENGINE_DIED))
            await exchange.end_stream()
        case FaultKind.ERROR_IN_200:
            error = backend.error(500, _ENGINE_DIED, "InternalServerError")
            await exchange.reply(error._replace(status=200))
        case FaultKind.EMPTY_BODY:
            await exchange.reply(Reply(content_type=EVENT_STREAM if stream else b"application/json"))
        case FaultKind.OVERSIZED_HEAD:
            await _send_endlessly(exchange, b"HTTP/1.1 200 OK\r\nx-endless: ", b"yes\r\nx-endless: " * 1024)
        case FaultKind.OVERSIZED_LINE:
            kind = EVENT_STREAM if stream else b"application/json"
            start = b'data: {"x":"' if stream else b'{"x":"'
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nconnection: close\r\n\r\n" % kind
            await _send_endlessly(exchange, head + start, _PIECE)
        case FaultKind.COMMENTS_FOREVER if stream:
            await _drip(fault, exchange, _STREAM_HEAD, lambda: _chunk(b": ping\n\n"))
        case FaultKind.COMMENTS_FOREVER:
            await _drip(fault, exchange, _CHUNKED_HEAD, lambda: _chunk(b" "))
        case FaultKind.INTERIM_FOREVER:
            await _drip(fault, exchange, b"", lambda: b"HTTP/1.1 102 Processing\r\n\r\n")
        case FaultKind.ERROR_FOREVER:
            await _drip(fault, exchange, _CHUNKED_HEAD.replace(b"200 OK", b"500 X"), lambda: _chunk(b"x"))
        case FaultKind.TOKENS_FOREVER if stream:
            await _drip(fault, exchange, _STREAM_HEAD, lambda: _chunk(token()))
        case FaultKind.TOKENS_FOREVER:
            await _drip(
                fault, exchange, _CHUNKED_HEAD + _chunk(b'{"choices":[{"text":"'), lambda: _chunk(b" so")
            )
        case FaultKind.COMPRESSED:
            await exchange.reply(Reply(body=_bomb(), headers=((b"content-encoding", b"gzip"),)))
        case _:
            raise AssertionError(f"{fault.kind} is no fault before the answer")


async def _send_endlessly(exchange: Exchange, start: bytes, piece: bytes) -> None:
    connection = exchange.connection
    connection.write_raw(start)
    for _ in range(_ENDLESS_BYTES // len(piece)):
        connection.write_raw(piece)
        await exchange.sent()
        if connection.transport.is_closing():
            break
    connection.close()
    await exchange.until_lost()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _drip(fault: Fault, exchange: Exchange, start: bytes, piece: Callable[[], bytes]) -> None:
    """Send a start, and then a piece after each gap for as long as the client stays."""
    connection = exchange.connection
    connection.write_raw(start)
    while not connection.transport.is_closing():
        connection.write_raw(piece())
        await asyncio.sleep(fault.gap_s)


@cache
def _bomb() -> bytes:
    """64 MiB of zeros in 64 KiB of gzip."""
    pack = zlib.compressobj(9, wbits=31)
    return pack.compress(bytes(64 << 20)) + pack.flush()


async def spoil_whole(fault: Fault, exchange: Exchange, backend: Backend, body: bytes) -> None:
    """Send a whole answer as the fault has it."""
    connection, half = exchange.connection, body[: len(body) // 2]
    match fault.kind:
        case FaultKind.HANG_IN_BODY:
            connection.write_raw(_HEAD % len(body) + half)
            await exchange.until_lost()
        case FaultKind.RESET_MID_STREAM:
            connection.write_raw(_HEAD % len(body) + half)
            await exchange.sent()
            connection.reset()
            await exchange.until_lost()
        case FaultKind.WRONG_LENGTH | FaultKind.EOF_NO_END_MARK:
            # the latter is meant for streams; a whole answer has no other end mark than its length
            connection.write_raw(_HEAD % (len(body) + 10) + body)
            connection.close()
            await exchange.until_lost()
        case FaultKind.TRUNCATED_JSON:
            await exchange.reply(Reply(body=half))
        case FaultKind.MALFORMED_SSE:
            await exchange.reply(Reply(body=_NOT_SSE))
        case FaultKind.ERROR_EVENT_THEN_DONE:
            await exchange.reply(backend.error(500, _ENGINE_DIED, "InternalServerError"))
        case _:
            raise AssertionError(f"{fault.kind} is no fault within an answer")


async def spoil_stream(fault: Fault, exchange: Exchange, backend: Backend, following: bytes) -> None:
    """End a stream, of which half is out, as the fault has it. following: the event that would come next."""
    connection = exchange.connection
    match fault.kind:
        case FaultKind.HANG_IN_BODY:
            await exchange.until_lost()
        case FaultKind.RESET_MID_STREAM:
            await exchange.sent()
            connection.reset()
            await exchange.until_lost()
        case FaultKind.WRONG_LENGTH:
            connection.write_raw(b"%x\r\n%b" % (len(following) + 10, following))
            connection.close()
            await exchange.until_lost()
        case FaultKind.EOF_NO_END_MARK:
            await exchange.end_stream()
        case FaultKind.TRUNCATED_JSON:
            await exchange.event(following[: len(following) // 2] + b"\n\n" + DONE)
            await exchange.end_stream()
        case FaultKind.MALFORMED_SSE:
            await exchange.event(_NOT_SSE + DONE)
            await exchange.end_stream()
        case FaultKind.ERROR_EVENT_THEN_DONE:
            await die_politely(exchange, backend)
        case _:
            raise AssertionError(f"{fault.kind} is no fault within an answer")


async def die_politely(exchange: Exchange, backend: Backend) -> None:
    """Say what a dying vLLM says: an error of status 500, or at the end of a stream an event and [DONE]."""
    if not exchange.stream_open:
        await exchange.reply(backend.error(500, _ENGINE_DIED, "InternalServerError"))
        return
    await exchange.event(backend.error_event(_ENGINE_DIED))
    await exchange.event(DONE)
    await exchange.end_stream()
