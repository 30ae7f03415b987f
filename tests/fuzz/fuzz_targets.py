"""What must hold of each parser for any bytes: told by AssertionError, or by whatever a parser raises.

Each target takes bytes from a fuzzer: a few that choose a variant and the splits, then what a server said.
The same targets are run by Hypothesis with the ordinary tests, and by atheris for minutes (`run_atheris.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.balance.models import judge_models
from lbrun.formats import FormatOptions, JsonFormat, make_format
from lbrun.formats.stream import SseDecoder
from lbrun.transport import Limits
from lbrun.transport.answer_reader import AnswerReader
from lbrun.transport.refusal import MAX_RETRY_AFTER_S, header, refusal_message, retry_after_s

N_CHOICES = 4
"""Bytes of an input that choose; a seed has them before what the server says."""

FORMATS = ("completions", "chat", "sglang_generate")
PAYLOADS = ("none", "text", "token_ids")
SMALL = 300
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _characters(text: str) -> list[int]:
    return [ord(character) for character in text]


def _format(choice: int, stream: bool, max_event_bytes: int | None = None) -> tuple[str, JsonFormat]:
    name = FORMATS[choice % len(FORMATS)]
    payload = PAYLOADS[choice // len(FORMATS) % len(PAYLOADS)]
    limits: dict[str, Any] = {} if max_event_bytes is None else {"max_event_bytes": max_event_bytes}
    options = FormatOptions(
        model="m",
        backend="sglang" if name == "sglang_generate" else "vllm",
        stream=stream,
        payload=payload,  # type: ignore[arg-type]
        retokenize=_characters if choice & 128 else None,
        **limits,
    )
    return payload, make_format(name, options)


def _pieces(data: bytes, first: int, second: int) -> Iterator[bytes]:
    """The data in pieces of two sizes, in turn."""
    at = 0
    for size in cycle((first + 1, second + 1)):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def _check_answer(answer: Answer, payload: str) -> None:
    assert answer.n_tokens > 0
    if payload == "none":
        assert answer.payload is None
    elif payload == "text":
        assert answer.payload is not None
        answer.payload.decode()
    else:
        assert answer.payload is not None
        assert len(answer.payload) % 4 == 0


# ---- heads and bodies


def http_answer(data: bytes) -> None:
    """HTTP answers are read the same in any split, within the limits, and never raise."""
    choices, said = data[:N_CHOICES].ljust(N_CHOICES, b"\0"), data[N_CHOICES:]
    limits = Limits(max_head_bytes=SMALL, max_body_bytes=2 * SMALL) if choices[0] & 1 else Limits()
    split = AnswerReader(limits)
    for piece in _pieces(said, choices[1], choices[2]):
        split.feed(piece)
        assert not (split.complete and split.trouble)
        if split.complete or split.trouble:
            break
        kept = sum(map(len, split.parts)) + sum(len(k) + len(v) for k, v in split.headers.items())
        assert kept <= limits.max_head_bytes + limits.max_body_bytes
        assert split.status or len(split.headers) <= limits.max_head_bytes
    if split.status and split.trouble is None:
        assert 100 <= split.status <= 999
        refusal_message(split.status, split.headers, b"")
        split.ends_with_connection()
    if len(said) > limits.max_head_bytes:
        return  # where the limit strikes depends on the split
    whole = AnswerReader(limits)
    whole.feed(said)
    assert (whole.complete, whole.trouble is None) == (split.complete, split.trouble is None)
    if whole.complete:
        assert whole.status == split.status
        assert whole.excess or whole.headers == split.headers  # what comes behind may have headers, too
        assert whole.body() == split.body()


def refusal(data: bytes) -> None:
    """A refusal is told on one line, and Retry-After is a time or nothing."""
    value, _, body = data[N_CHOICES:].partition(b"\n")
    wait_s = retry_after_s(value, _NOW)
    assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S
    headers = {b"Location": value}
    assert header(headers, b"location") == value
    message = refusal_message(100 + data[0] * 4 if data else 0, headers, body)
    assert message.isprintable()
    assert len(message) < 600


# ---- what is in them


def whole_answer(data: bytes) -> None:
    """A whole body is an answer with tokens, or a BadAnswer."""
    choice, said = data[0] if data else 0, data[N_CHOICES:]
    payload, fmt = _format(choice, stream=False)
    try:
        answer = fmt.decode(said)
    except BadAnswer:
        return
    _check_answer(answer, payload)
    document = json.loads(said.decode("utf-8", "replace"))  # bytes of fields that nobody reads
    assert isinstance(document, dict)
    assert not document.get("error")


def model_list(data: bytes) -> None:
    """A model list is judged, whatever it is."""
    choices, said = data[:N_CHOICES].ljust(N_CHOICES, b"\0"), data[N_CHOICES:]
    status = (200, 401, 500, 503)[choices[0] % 4]
    verdict = judge_models(status, said, model="m", backend=("vllm", "sglang", "openai")[choices[1] % 3])
    assert verdict.detail
    assert verdict.info is None or verdict.info.vocab_size is None or verdict.info.vocab_size > 0


def stream(data: bytes) -> None:
    """A stream is the same in any split; no error in it passes for an answer; what is kept is bounded."""
    choices, said = data[:N_CHOICES].ljust(N_CHOICES, b"\0"), data[N_CHOICES:]
    payload, fmt = _format(choices[0], stream=True)
    split = fmt.stream_decoder()
    for piece in _pieces(said, choices[1], choices[2]):
        split.feed(piece)
    outcome = _finish(split)
    if isinstance(outcome, Answer):
        _check_answer(outcome, payload)
        _check_success(said, cumulative=fmt.name == "sglang_generate")
    _check_bounded(choices, said)
    if b"[DONE]" in said[:-1024]:
        return  # an end mark is looked for at the end of what has come
    whole = fmt.stream_decoder()
    whole.feed(said)
    assert _finish(whole) == outcome


def _finish(decoder: SseDecoder) -> Answer | FailureKind:
    try:
        answer = decoder.finish()
    except BadAnswer as bad:
        return bad.kind
    assert decoder.has_token
    return answer


def _check_success(said: bytes, *, cumulative: bool) -> None:
    """By a slow reading of the same stream: it has an end, and no error before it."""
    text = said.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf")
    ended = False
    documents = []
    for event in text.split(b"\n\n"):
        lines = [line.partition(b":") for line in event.split(b"\n")]
        body = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
        if body.strip() == b"[DONE]":
            ended = True
            break
        try:
            documents.append(json.loads(body.decode("utf-8", "replace")))
        except (ValueError, RecursionError):
            continue
    documents = [document for document in documents if isinstance(document, dict)]
    errors = [document for document in documents if document.get("error")]
    # a server that repeats all of its answer in each event has its say in the last
    assert not (errors and (not cumulative or documents[-1] in errors)), errors
    finished = any("finish_reason" in json.dumps(document) for document in documents)
    assert ended or finished


def _check_bounded(choices: bytes, said: bytes) -> None:
    _, fmt = _format(choices[0], stream=True, max_event_bytes=SMALL)
    decoder = fmt.stream_decoder()
    for piece in _pieces(said, choices[1], choices[2]):
        decoder.feed(piece)
        if decoder.error is not None:
            break
        assert len(decoder._partial) <= SMALL


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (http_answer, refusal, whole_answer, model_list, stream)
}
