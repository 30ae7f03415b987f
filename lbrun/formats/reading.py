"""From the fields of a server's JSON to an answer or a verdict: the same for every request format.

A `Reader` knows one protocol's field names and turns an answer, or one event of a stream, into a `Reading`;
`to_answer` judges what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats.bounds import Bounds
from lbrun.formats.payload import Payload

T = TypeVar("T")

MAX_MESSAGE_CHARS = 300

# how servers end an answer that they gave up: vLLM and SGLang say abort, routers say error
_GIVEN_UP = frozenset({"abort", "error"})


class Reading(NamedTuple):
    """What a whole answer, or one event of a stream, says.

    has_token: at least one output token is in it (only told for events).
    ids: token ids; empty where the server did not send them.
    n_tokens: output tokens by the server's count, None where it does not say. In an event: so far.
    n_input_tokens: prompt tokens by the server's count, 0 where it does not say.
    """

    has_token: bool = False
    text: str = ""
    ids: Sequence[int] = ()
    finish_reason: str | None = None
    n_tokens: int | None = None
    n_input_tokens: int = 0


class Reader(Protocol):
    """Knows the fields of one protocol's answers. Every method raises BadAnswer for what is no answer."""

    cumulative: bool  # each event of a stream repeats all before it, so that the last one is the answer

    def whole(self, body: bytes) -> Reading:
        """Read a whole answer."""

    def event(self, data: bytes) -> Reading:
        """Read the data of one event of a stream."""

    def pieces(self, events: bytes) -> tuple[str, list[int]]:
        """Text and token ids of many events in a row, given as a JSON array. Not for cumulative ones."""


class _ErrorBody(msgspec.Struct):
    """The places where servers put an error: OpenAI's, SGLang's, FastAPI's."""

    error: Any = None
    object: Any = None
    message: Any = None
    detail: Any = None


_decode_error_body = msgspec.json.Decoder(_ErrorBody).decode


def decode_json(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """The decoder's struct. Raises BadAnswer (MALFORMED) for anything else, however odd."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        start = data[:80].decode(errors="replace")
        raise BadAnswer(FailureKind.MALFORMED, f"not the expected JSON ({error}): {start!r}") from None


def error_in_answer(error: object) -> BadAnswer:
    """The failure for an error object that came under status 200; keeps the server's own message."""
    code = None
    if isinstance(error, dict):
        code = error.get("code")
        error = error.get("message") or error
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    if isinstance(code, int):
        text = f"{text[:MAX_MESSAGE_CHARS]} (code {code})"
    return BadAnswer(
        FailureKind.ERROR_IN_ANSWER, f"the server answered with an error: {text}"[:MAX_MESSAGE_CHARS]
    )


def raise_if_error_body(body: bytes) -> None:
    """Raise BadAnswer (ERROR_IN_ANSWER) where a body without an answer's fields is an error in one of the
    usual forms."""
    try:
        fields = _decode_error_body(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    if fields.error:
        raise error_in_answer(fields.error)
    if fields.object == "error" or fields.detail:
        raise error_in_answer(fields.message or fields.detail or "no message")


def check_count(n_tokens: int | None, ids: Sequence[int]) -> int:
    """How many output tokens the server says there are, by its count or else by the ids it sent.

    Raises BadAnswer: NO_TOKEN_COUNT where it says neither, EMPTY_ANSWER for none.
    """
    if n_tokens is None:
        n_tokens = len(ids)
        if n_tokens == 0:
            raise BadAnswer(
                FailureKind.NO_TOKEN_COUNT,
                "the answer does not say how many tokens it has; let the server send `usage` (in streams: "
                "stream_options.include_usage) or token ids",
            )
    if n_tokens == 0:
        raise BadAnswer(FailureKind.EMPTY_ANSWER, "the answer has no tokens")
    return n_tokens


def to_answer(reading: Reading, payload: Payload, bounds: Bounds) -> Answer:
    """The answer that a complete reading amounts to. Raises BadAnswer where it is none."""
    finish_reason = reading.finish_reason
    if finish_reason in _GIVEN_UP:
        raise BadAnswer(
            FailureKind.ERROR_IN_ANSWER, f"the server gave the answer up: finish reason {finish_reason!r}"
        )
    n_tokens = check_count(reading.n_tokens, reading.ids)
    bounds.check_counts(n_tokens, reading.n_input_tokens)
    return Answer(
        n_tokens,
        reading.n_input_tokens,
        payload.whole(reading.text, reading.ids, n_tokens),
        finish_reason or "",
    )
