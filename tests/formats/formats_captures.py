"""Captured answers of real servers, and a slow, obvious reading of them to compare with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httptools

from lbrun.formats import FormatOptions, JsonFormat, make_format
from lbrun.formats.options import PayloadKind

CAPTURES = Path(__file__).parent.parent / "captures"
_FORMATS = {
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
    "/generate": "sglang_generate",
}


@dataclass(frozen=True)
class Capture:
    """One answer of status 200; `complete` unless the server died before the end of the HTTP message."""

    vendor: str
    name: str
    path: str
    request: dict[str, Any]
    body: bytes
    is_stream: bool
    complete: bool

    @property
    def format_name(self) -> str:
        return _FORMATS[self.path]

    @property
    def id(self) -> str:
        return f"{self.vendor}/{self.name}"

    def format(self, payload: PayloadKind = "none") -> JsonFormat:
        """A format that reads this capture."""
        backend = "openai" if self.vendor == "transformers" else self.vendor
        options = FormatOptions(
            model="tiny",
            backend=backend,  # type: ignore[arg-type]
            stream=self.is_stream,
            payload=payload,
            retokenize=characters if payload == "token_ids" else None,
        )
        return make_format(self.format_name, options)

    @property
    def events(self) -> list[bytes]:
        """The stream's events, each with the blank line that ends it."""
        return [event + b"\n\n" for event in self.body.split(b"\n\n") if event]


def characters(text: str) -> list[int]:
    """A stand-in for a local tokenizer."""
    return [ord(character) for character in text]


class _Body:
    """Takes a response apart: httptools undoes the chunks."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.complete = True


@cache
def capture(vendor: str, name: str) -> Capture:
    folder = CAPTURES / vendor
    response = _Body()
    httptools.HttpResponseParser(response).feed_data((folder / f"{name}.response.bin").read_bytes())
    head, _, body = (folder / f"{name}.request.bin").read_bytes().partition(b"\r\n\r\n")
    return Capture(
        vendor=vendor,
        name=name,
        path=head.split(b" ")[1].decode(),
        request=json.loads(body),
        body=b"".join(response.parts),
        is_stream=response.headers[b"content-type"].startswith(b"text/event-stream"),
        complete=response.complete,
    )


def all_captures() -> list[Capture]:
    """Every captured answer to a sample's request, of whatever kind."""
    taken = []
    for vendor in ("sglang", "transformers", "vllm"):
        for path in sorted((CAPTURES / vendor).glob("*.response.bin")):
            name = path.name.removesuffix(".response.bin")
            request = (CAPTURES / vendor / f"{name}.request.bin").read_bytes()
            asked_for = request.split(b" ", 2)[1].decode()
            if asked_for in _FORMATS and path.read_bytes().startswith(b"HTTP/1.1 200"):
                taken.append(capture(vendor, name))
    return taken


@dataclass
class Reading:
    """What a capture says, read the slow way."""

    text: str = ""
    ids: list[int] | None = None
    n_tokens: int | None = None
    n_input_tokens: int = 0
    finish_reason: str = ""
    error: str | None = None
    end_mark: bool = False


def read_slowly(taken: Capture) -> Reading:
    """Every event as a dict, with the standard library's JSON."""
    reading = Reading()
    documents = [taken.body]
    if taken.is_stream:
        documents = [event.removeprefix(b"data: ") for event in taken.body.split(b"\n\n") if event]
    for document in documents:
        if document == b"[DONE]":
            reading.end_mark = True
            continue
        fields = json.loads(document)
        if "error" in fields:
            reading.error = fields["error"]["message"]
        elif taken.format_name == "sglang_generate":
            meta = fields["meta_info"]
            reading.text, reading.ids = fields["text"], fields["output_ids"]
            reading.n_tokens, reading.n_input_tokens = meta["completion_tokens"], meta["prompt_tokens"]
            reading.finish_reason = (meta["finish_reason"] or {}).get("type", "")
        else:
            _add_openai(reading, fields)
    return reading


def _add_openai(reading: Reading, fields: dict[str, Any]) -> None:
    usage = fields.get("usage")
    if usage:
        reading.n_tokens, reading.n_input_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    for choice in fields["choices"]:
        message = choice.get("message") or choice.get("delta") or choice
        reading.text += message.get("content") or message.get("text") or ""
        ids = choice.get("token_ids") or choice.get("response_token_ids")
        if ids:
            reading.ids = (reading.ids or []) + ids
        reading.finish_reason = choice.get("finish_reason") or reading.finish_reason
