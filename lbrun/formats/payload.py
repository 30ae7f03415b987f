"""The payload of an answer: what LoadGen writes to its accuracy log.

Text models log their output token ids as int32, little-endian; qwen3-vl logs UTF-8 text (MLPerf's reference
implementations and accuracy scripts).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from lbrun.attempt import BadAnswer, FailureKind
from lbrun.formats.bounds import Bounds
from lbrun.formats.options import FormatOptions


class Payload(Protocol):
    """Makes payloads of one kind."""

    wanted: bool  # False: text and ids need not be gathered

    def whole(self, text: str, ids: Sequence[int], n_tokens: int) -> bytes | None:
        """The payload of a whole answer with `n_tokens` tokens. Raises BadAnswer where it cannot be had."""

    def first(self, text: str, ids: Sequence[int]) -> bytes | None:
        """The payload of the tokens that came first."""


class NoPayload:
    """Nobody asked for payloads."""

    wanted = False

    def whole(self, text: str, ids: Sequence[int], n_tokens: int) -> bytes | None:
        """No payload."""
        return None

    def first(self, text: str, ids: Sequence[int]) -> bytes | None:
        """No payload."""
        return None


class TextPayload:
    """The answer's text as UTF-8."""

    wanted = True

    def whole(self, text: str, ids: Sequence[int], n_tokens: int) -> bytes | None:
        """The text."""
        return text.encode()

    def first(self, text: str, ids: Sequence[int]) -> bytes | None:
        """The text so far; b"" where the first token has none of its own (half of a UTF-8 character)."""
        return text.encode()


class TokenIdPayload:
    """The answer's token ids as int32, little-endian.

    retokenize: makes ids of the text where the server returned none. Their number may then differ from
    the server's own count, and the first ones need not be a prefix of all of them.
    """

    wanted = True

    def __init__(self, bounds: Bounds, retokenize: Callable[[str], list[int]] | None = None) -> None:
        self._bounds, self._retokenize = bounds, retokenize

    def whole(self, text: str, ids: Sequence[int], n_tokens: int) -> bytes | None:
        """All token ids; those that the server sent must be as many as it counts (TEST06's rule)."""
        if ids:
            self._bounds.check_ids(ids)
            if len(ids) != n_tokens:
                raise BadAnswer(
                    FailureKind.MALFORMED,
                    f"the server counts {n_tokens} output tokens and sent {len(ids)} token ids",
                )
            return pack_ids(ids)
        if self._retokenize is None:
            # of the same kind as a missing count: every answer lacks it until the set-up is changed
            raise BadAnswer(
                FailureKind.NO_TOKEN_COUNT,
                "the answer has no token ids; use a server that knows return_token_ids (vLLM 0.10.2 or "
                "newer, SGLang), SGLang's /generate, or a local tokenizer",
            )
        return pack_ids(self._retokenize(text))

    def first(self, text: str, ids: Sequence[int]) -> bytes | None:
        """The ids that came with the first token. Raises BadAnswer for ids that cannot be."""
        self._bounds.check_ids(ids)
        if not ids and self._retokenize is not None:
            ids = self._retokenize(text)
        return pack_ids(ids)


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as int32, little-endian. Raises BadAnswer (MALFORMED) for an id beyond int32."""
    try:
        return struct.pack(f"<{len(ids)}i", *ids)
    except struct.error as error:
        raise BadAnswer(FailureKind.MALFORMED, f"a token id is no int32: {error}") from None


def make_payload(options: FormatOptions, bounds: Bounds) -> Payload:
    """The payload that the options ask for."""
    if options.payload == "token_ids":
        return TokenIdPayload(bounds, options.retokenize)
    if options.payload == "text":
        return TextPayload()
    return NoPayload()
