"""Where fuzzing begins: what real servers have said, and every token that the parsers know."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from fuzz_targets import FORMATS, N_CHOICES, PAYLOADS

_CAPTURES = Path(__file__).parent.parent / "captures"
_MAX_BYTES = 8192

WORDS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"\r\n\r\n",
    b"Connection: close\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"Wed, 21 Oct 2026 07:28:00 GMT\n",
    b"data: ",
    b"data:",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r",
    b": ping\n\n",
    b"data: [DONE]\n\n",
    b"event: message\n",
    b'{"error":{"message":"no","code":500}}',
    b'{"object":"error"}',
    b'{"detail":"no"}',
    b'{"choices":[{"text":"a","token_ids":[1],"finish_reason":null}]}',
    b'{"choices":[{"text":"","finish_reason":"stop"}]}',
    b'{"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]}',
    b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}',
    b'{"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":5}}',
    b'{"text":"a","output_ids":[1],"meta_info":{"completion_tokens":1,"finish_reason":{"type":"stop"}}}',
    b'{"data":[{"id":"m","max_model_len":9,"vocab_size":7,"meta":{"n_vocab":8}}]}',
    b"null",
    b"[]",
    b"-1",
    b"1e999",
    b'"\\ud800"',
    b"\xf0\x9f",
    b"\x98\x80",
    b"\xef\xbb\xbf",
    b"\x00",
)


@cache
def answers() -> tuple[tuple[bytes, bytes], ...]:
    """Head and body of each captured answer that is small enough."""
    found = []
    for path in sorted(_CAPTURES.rglob("*.response.bin")):
        data = path.read_bytes()
        if data and len(data) <= _MAX_BYTES:
            head, _, body = data.partition(b"\r\n\r\n")
            found.append((head + b"\r\n\r\n", body))
    return tuple(found)


def seeds(target: str) -> Iterator[bytes]:
    """Inputs for a target: heads with bodies, or bodies with each choice of format and payload."""
    variants = range(len(FORMATS) * len(PAYLOADS)) if target in ("stream", "whole_answer") else range(2)
    for n, (head, body) in enumerate(answers()):
        choices = bytes([n % len(variants), n % 7, n % 61]).ljust(N_CHOICES, b"\0")
        yield choices + (head + body if target == "http_answer" else _plain(body))
    for word in WORDS:
        yield bytes(N_CHOICES) + word


def _plain(body: bytes) -> bytes:
    """A body without the framing of its chunks."""
    lines = body.split(b"\r\n")
    if len(lines) < 3 or not lines[0].strip().isalnum():
        return body
    return b"".join(lines[1::2])
