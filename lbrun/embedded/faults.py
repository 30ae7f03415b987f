"""Faults that an embedded server can be told to have, and when each of them strikes.

Pure: the clock is passed in, and which requests a share hits is a function of their number.
What a fault does to a request is in `lbrun.embedded.breakage`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    """How a server can fail. "Half" is half of the answer's tokens, or of its bytes where it is whole."""

    HANG_BEFORE_HEADERS = "hang_before_headers"  # the request is read and never answered
    HANG_IN_BODY = "hang_in_body"  # half of the answer, then silence
    RESET_BEFORE_HEADERS = "reset_before_headers"  # RST instead of an answer
    RESET_MID_STREAM = "reset_mid_stream"  # half of the answer, then RST
    EOF_NO_END_MARK = "eof_no_end_mark"  # a stream ends well in HTTP, without finish reason and [DONE]
    WRONG_LENGTH = "wrong_length"  # fewer bytes than announced, then FIN
    TRUNCATED_JSON = "truncated_json"  # well-formed HTTP, and JSON that stops in the middle
    ERROR_IN_200 = "error_in_200"  # status 200, and an error object is all it says
    ERROR_EVENT_THEN_DONE = "error_event_then_done"  # a dying vLLM: half of a stream, an error event, [DONE]
    EMPTY_BODY = "empty_body"  # status 200 without a byte
    MALFORMED_SSE = "malformed_sse"  # lines that are neither events nor JSON
    STATUS_400 = "status_400"
    STATUS_401 = "status_401"
    STATUS_422 = "status_422"
    STATUS_429 = "status_429"  # value: the Retry-After header, as it is to be sent
    STATUS_500 = "status_500"
    STATUS_503_LOADING = "status_503_loading"  # health and completions, as of a server that still loads
    REDIRECT = "redirect"  # 307 to another path
    HEALTH_FAILS = "health_fails"  # 503 for health alone
    HEALTH_OK_COMPLETIONS_FAIL = "health_ok_completions_fail"  # 500 for completions alone
    WRONG_MODEL = "wrong_model"  # another model is listed and served
    SLOW_FACTOR = "slow_factor"  # value: all times are multiplied by it (default 10)
    SLOW_HEADERS = "slow_headers"  # a good answer, its head 16 bytes at a time; value: ms between (50)
    SLOW_BODY = "slow_body"  # a good answer whose body trickles; value: ms between pieces (20)
    SPLIT_PACKETS = "split_packets"  # a good answer, cut into packets within events and characters
    OVERSIZED_HEAD = "oversized_head"  # headers without an end
    OVERSIZED_LINE = "oversized_line"  # a body, or one line of a stream, without an end
    COMPRESSED = "compressed"  # a gzip bomb, though nobody asked for compression
    POISON = "poison"  # a token id outside the vocabulary ends the process, as it does to a real SGLang
    CRASH = "crash"  # the process ends at a request, without an answer; value: which one, counted from now
    STATUS = "status"  # value: any status, or status;Retry-After
    # an answer that begins and never ends; value: ms between two pieces
    COMMENTS_FOREVER = "comments_forever"  # comments of a stream, blanks of a whole answer (1000)
    INTERIM_FOREVER = "interim_forever"  # heads of status 102 (1000)
    ERROR_FOREVER = "error_forever"  # the body of a 500 (1000)
    TOKENS_FOREVER = "tokens_forever"  # tokens beyond max_tokens (50)
    # a well-formed answer that says something wrong
    WRONG_COUNT = "wrong_count"  # value: the count of output tokens
    WRONG_PROMPT_COUNT = "wrong_prompt_count"  # value: the count of prompt tokens
    WRONG_IDS = "wrong_ids"  # value: stands for every token id
    EXTRA_TOKENS = "extra_tokens"  # value: so many tokens more than there are
    FINISH_REASON = "finish_reason"  # value: the reason
    ANSWER_OF_ANOTHER = "answer_of_another"  # the answer to the request before
    ANSWER_TWICE = "answer_twice"  # each answer is sent twice; value: ms between them (1)


BEFORE_ANSWER = frozenset(
    {
        FaultKind.HANG_BEFORE_HEADERS,
        FaultKind.RESET_BEFORE_HEADERS,
        FaultKind.ERROR_IN_200,
        FaultKind.EMPTY_BODY,
        FaultKind.STATUS_400,
        FaultKind.STATUS_401,
        FaultKind.STATUS_422,
        FaultKind.STATUS_429,
        FaultKind.STATUS_500,
        FaultKind.STATUS_503_LOADING,
        FaultKind.REDIRECT,
        FaultKind.HEALTH_OK_COMPLETIONS_FAIL,
        FaultKind.OVERSIZED_HEAD,
        FaultKind.OVERSIZED_LINE,
        FaultKind.COMPRESSED,
        FaultKind.STATUS,
        FaultKind.COMMENTS_FOREVER,
        FaultKind.INTERIM_FOREVER,
        FaultKind.ERROR_FOREVER,
        FaultKind.TOKENS_FOREVER,
    }
)
IN_ANSWER = frozenset(
    {
        FaultKind.HANG_IN_BODY,
        FaultKind.RESET_MID_STREAM,
        FaultKind.EOF_NO_END_MARK,
        FaultKind.WRONG_LENGTH,
        FaultKind.TRUNCATED_JSON,
        FaultKind.ERROR_EVENT_THEN_DONE,
        FaultKind.MALFORMED_SSE,
    }
)
OF_DELIVERY = frozenset({FaultKind.SLOW_HEADERS, FaultKind.SLOW_BODY, FaultKind.SPLIT_PACKETS})
OF_CONTENT = frozenset(
    {
        FaultKind.WRONG_COUNT,
        FaultKind.WRONG_PROMPT_COUNT,
        FaultKind.WRONG_IDS,
        FaultKind.EXTRA_TOKENS,
        FaultKind.FINISH_REASON,
        FaultKind.ANSWER_TWICE,
    }
)
OF_HEALTH = frozenset({FaultKind.HEALTH_FAILS, FaultKind.STATUS_503_LOADING})

_GAPS_MS = {
    FaultKind.SLOW_HEADERS: 50.0,
    FaultKind.SLOW_BODY: 20.0,
    FaultKind.SPLIT_PACKETS: 1.0,
    FaultKind.COMMENTS_FOREVER: 1000.0,
    FaultKind.INTERIM_FOREVER: 1000.0,
    FaultKind.ERROR_FOREVER: 1000.0,
    FaultKind.TOKENS_FOREVER: 50.0,
    FaultKind.ANSWER_TWICE: 1.0,
}
_NUMBERS = {
    FaultKind.CRASH: "the number of a request",
    FaultKind.WRONG_COUNT: "a count",
    FaultKind.WRONG_PROMPT_COUNT: "a count",
    FaultKind.WRONG_IDS: "a token id",
    FaultKind.EXTRA_TOKENS: "how many tokens",
}
_SPEC = re.compile(
    r"(?:(?P<server>\d{1,6}):)?(?P<kind>\w+)(?:=(?P<value>[^@+*]*))?"
    r"(?:@(?P<start>\d+(?:\.\d+)?))?(?:\+(?P<duration>\d+(?:\.\d+)?))?(?:\*(?P<share>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One fault of one server.

    server: index in the pool. start_s: after the server's start, or after the fault was switched on.
    duration_s: how long it lasts. share: of requests that it hits. value: see `FaultKind`.
    Raises ValueError for values out of bounds.
    """

    kind: FaultKind
    server: int = 0
    start_s: float = 0.0
    duration_s: float = math.inf
    share: float = 1.0
    value: str = ""

    def __post_init__(self) -> None:
        if self.server < 0 or not self.start_s >= 0 or not self.duration_s > 0 or not 0 < self.share <= 1:
            raise ValueError(
                f"fault {self}: write a start of 0 or later, a duration above 0, a share up to 1"
            )
        if not re.fullmatch(r"[^@+*\x00-\x1f\x7f-\U0010ffff]*", self.value):
            raise ValueError(f"fault {self.kind}: {self.value!r} cannot be the value of a fault")
        if self.kind is FaultKind.SLOW_FACTOR and not self.factor > 0:
            raise ValueError(f"fault slow_factor: {self.value!r} is no factor above 0; write slow_factor=10")
        if self.kind in _NUMBERS and not re.fullmatch(r"-?\d{1,30}", self.value):
            raise ValueError(f"fault {self.kind}: write {_NUMBERS[self.kind]}, e.g. {self.kind}=1000")
        if self.kind is FaultKind.STATUS and not re.fullmatch(r"[2-5]\d\d(;.*)?", self.value):
            raise ValueError(f"fault status: {self.value!r} is no status; write status=409 or 'status=429;5'")
        if self.kind in _GAPS_MS and not 0 <= self.gap_s < math.inf:
            raise ValueError(f"fault {self.kind}: {self.value!r} is no time in ms; write {self.kind}=50")

    @property
    def factor(self) -> float:
        """What a slow server's times are multiplied by; NaN where the value is no number."""
        try:
            return float(self.value or 10)
        except ValueError:
            return math.nan

    @property
    def gap_s(self) -> float:
        """The pause between two pieces of an answer that comes slowly; NaN where the value is no number."""
        try:
            return float(self.value or _GAPS_MS.get(self.kind, 0.0)) / 1000
        except ValueError:
            return math.nan

    def __str__(self) -> str:
        return f"{self.server}:{self.without_server()}"

    def without_server(self) -> str:
        """The notation that `parse_fault` reads, for the server's own command line."""
        parts = [str(self.kind)]
        if self.value:
            parts.append(f"={self.value}")
        if self.start_s:
            parts.append(f"@{self.start_s:f}")
        if self.duration_s != math.inf:
            parts.append(f"+{self.duration_s:f}")
        if self.share != 1:
            parts.append(f"*{self.share:f}")
        return "".join(parts)


def parse_fault(text: str) -> Fault:
    """Read ``[SERVER:]KIND[=VALUE][@START_S][+DURATION_S][*SHARE]``, e.g. ``1:status_500@5+10*0.3``.

    Raises ValueError with what is wrong and how to write it.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f"fault {text!r} is not understood; write [SERVER:]KIND[=VALUE][@START_S][+DURATION_S][*SHARE], "
            "e.g. 1:status_500@5+10*0.3"
        )
    if found["kind"] not in FaultKind.__members__.values():
        raise ValueError(f"fault {text!r}: no kind {found['kind']!r}; one of {', '.join(FaultKind)}")
    return Fault(
        kind=FaultKind(found["kind"]),
        server=int(found["server"] or 0),
        start_s=float(found["start"] or 0),
        duration_s=float(found["duration"] or math.inf),
        share=float(found["share"] or 1),
        value=found["value"] or "",
    )


class FaultSwitch:
    """Which of a server's faults strike now. Times are seconds of one monotonic clock."""

    def __init__(self, faults: Sequence[Fault], now_s: float) -> None:
        self.set(faults, now_s)

    def set(self, faults: Sequence[Fault], now_s: float) -> None:
        """Replace all faults; their start counts from now."""
        self.faults = tuple(faults)
        self._due = tuple(replace(f, start_s=now_s + f.start_s) for f in faults)
        self._n_drawn = [0] * len(self._due)

    def strike(self, kinds: Collection[FaultKind], now_s: float) -> Fault | None:
        """The first fault among `kinds` that hits this request, if any."""
        for index, fault in enumerate(self._due):
            if (
                fault.kind in kinds
                and fault.start_s <= now_s < fault.start_s + fault.duration_s
                and (fault.share == 1 or self._drawn(index) < fault.share)
            ):
                return fault
        return None

    def _drawn(self, index: int) -> float:
        """A number in [0, 1) for the next request that a fault may hit, the same in every run."""
        self._n_drawn[index] = n = self._n_drawn[index] + 1
        return Random(n).random()  # noqa: S311 - no secret

    def slowness(self, now_s: float) -> float:
        """What all times are multiplied by."""
        fault = self.strike((FaultKind.SLOW_FACTOR,), now_s)
        return fault.factor if fault else 1.0
