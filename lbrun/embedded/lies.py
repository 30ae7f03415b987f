"""Answers that are well-formed and say something wrong: counts, ids, finish reasons; and answers sent twice.

Both classes stand in for the server's own ``send`` of ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.types import Message, Send

from lbrun.embedded.exchange import Exchange
from lbrun.embedded.faults import Fault, FaultKind

_PREFIX, _BLANK_LINE = b"data: ", b"\n\n"
_COUNTS = {"completion_tokens", "prompt_tokens"}
_IDS = ("token_ids", "output_ids")


class Lying:
    """Changes the JSON of an answer on its way to the client.

    wrong_count, wrong_prompt_count: the value replaces the server's count. wrong_ids: the value replaces
    every token id. extra_tokens: the value is how many ids are added at the end. finish_reason: the value
    replaces the reason.
    """

    def __init__(self, send: Send, fault: Fault) -> None:
        self._send, self._kind, self._value = send, fault.kind, fault.value
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message; the head waits for the body, since its length may change."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        body: bytes = message.get("body", b"")
        if body.startswith(_PREFIX):
            body = _BLANK_LINE.join(self._event(event) for event in body.split(_BLANK_LINE))
        elif body:
            body = self._changed(body)
        if self._head is not None:
            headers = [
                (name, b"%d" % len(body) if name == b"content-length" else value)
                for name, value in self._head["headers"]
            ]
            head, self._head = {**self._head, "headers": headers}, None
            await self._send(head)
        await self._send({**message, "body": body})

    def _event(self, event: bytes) -> bytes:
        if not event.startswith(_PREFIX + b"{"):
            return event
        return _PREFIX + self._changed(event.removeprefix(_PREFIX))

    def _changed(self, body: bytes) -> bytes:
        document = msgspec.json.decode(body)
        self._change(document)
        if self._kind is FaultKind.WRONG_COUNT and len(self._value) > _LONGEST_INT:
            # beyond 64 bits: the encoder has no such integers
            return msgspec.json.encode(document).replace(b'"%b"' % self._value.encode(), self._value.encode())
        return msgspec.json.encode(document)

    def _change(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self._change(item)
        if not isinstance(node, dict):
            return
        for key, value in node.items():
            if (
                (self._kind is FaultKind.WRONG_COUNT and key == "completion_tokens")
                or (self._kind is FaultKind.WRONG_PROMPT_COUNT and key == "prompt_tokens")
            ) and value is not None:
                node[key] = self._value if len(self._value) > _LONGEST_INT else int(self._value)
            elif key in _IDS and isinstance(value, list) and value:
                if self._kind is FaultKind.WRONG_IDS:
                    node[key] = [int(self._value)] * len(value)
                elif self._kind is FaultKind.EXTRA_TOKENS:
                    node[key] = [*value, *value[-1:] * int(self._value)]
            elif self._kind is FaultKind.EXTRA_TOKENS and key == "completion_tokens" and value:
                node[key] = value + int(self._value)
            elif self._kind is FaultKind.FINISH_REASON and key == "finish_reason" and value is not None:
                node[key] = self._value
            else:
                self._change(value)


_LONGEST_INT = 18


class Twice:
    """Sends an answer, and the same bytes once more on the same connection a little later.

    The value of the fault is the pause in ms. A proxy with a replay fault does this; HTTP/1.1 has no means to
    tell the second answer from that to the next request.
    """

    def __init__(self, exchange: Exchange, send: Send, fault: Fault) -> None:
        self._exchange, self._send, self._gap_s = exchange, send, fault.gap_s
        self._copy: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message, and keep it for the second time."""
        self._copy += self._raw(message)
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            loop, connection = asyncio.get_running_loop(), self._exchange.connection
            loop.call_later(self._gap_s, connection.write_raw, b"".join(self._copy))

    def _raw(self, message: Message) -> Iterable[bytes]:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            self._chunked = not any(name == b"content-length" for name, _ in headers)
            if self._chunked:
                headers.append((b"transfer-encoding", b"chunked"))
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            yield b"HTTP/1.1 %d OK\r\n%b\r\n" % (message["status"], lines)
            return
        body = message.get("body", b"")
        if body:
            yield b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body
        if self._chunked and not message.get("more_body", False):
            yield b"0\r\n\r\n"
