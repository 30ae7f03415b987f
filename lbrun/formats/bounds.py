"""Bounds of what an answer may say: no server can count or send more than it was asked for.

Every number that a server says is held to these bounds where it is read, so that the rest of lbrun works with
numbers that fit into 32 bits and that make sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbrun.attempt import BadAnswer, FailureKind

INT32_MAX = 2**31 - 1
INT32_END = 2**31


@dataclass(frozen=True, slots=True)
class Bounds:
    """max_tokens: output tokens that a request asks for at most. vocab_size: token ids are below it.

    Where the run does not say, int32 is the bound: LoadGen logs token ids as such.
    """

    max_tokens: int = INT32_MAX
    vocab_size: int = INT32_END

    def check_counts(self, n_tokens: int, n_input_tokens: int) -> None:
        """Check the counts of an answer. Raises BadAnswer (IMPLAUSIBLE)."""
        if n_tokens > self.max_tokens:
            raise _implausible(
                f"the server counts {_shown(n_tokens)} output tokens; {self.max_tokens} is the limit"
            )
        if n_tokens < 0:
            raise _implausible(f"the server counts {_shown(n_tokens)} output tokens")
        if not 0 <= n_input_tokens <= INT32_MAX:
            raise _implausible(f"the server counts {_shown(n_input_tokens)} prompt tokens")

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check token ids that the server sent. Raises BadAnswer (IMPLAUSIBLE)."""
        if not ids:
            return
        if len(ids) > self.max_tokens:
            raise _implausible(f"the server sent {len(ids)} token ids; {self.max_tokens} is the limit")
        least, most = min(ids), max(ids)
        if least < 0 or most >= self.vocab_size:
            wrong = least if least < 0 else most
            of = f" of {self.vocab_size}" if self.vocab_size < INT32_END else ""
            raise _implausible(f"the server sent token id {_shown(wrong)}, outside the vocabulary{of}")


def asked_tokens(*bodies: Mapping[str, Any]) -> int:
    """The most output tokens that a request asks for. bodies: its fields, later ones win.

    The name of the limit differs by API; `max_completion_tokens` is OpenAI's newer one and wins in a body.
    """
    asked = INT32_MAX
    for body in bodies:
        for name in ("max_tokens", "max_new_tokens", "max_completion_tokens"):
            value = body.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                asked = min(value, INT32_MAX)
    return asked


def _implausible(message: str) -> BadAnswer:
    return BadAnswer(FailureKind.IMPLAUSIBLE, message)


def _shown(n: int) -> str:
    """The number; beyond 64 bits its size only, since a server may send thousands of digits."""
    return str(n) if n.bit_length() <= 64 else f"{'-' if n < 0 else ''}2^{n.bit_length() - 1} and more"
