"""What the dispatcher needs of LoadGen and of the records, without knowing either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lbrun.dispatch.retry import Try


class FirstToken(NamedTuple):
    """The first token of a sample; payload as LoadGen logs it, None where not asked for."""

    query_id: int
    payload: bytes | None


class Finished(NamedTuple):
    """A sample's completion; n_tokens 0 and no payload for a failed one."""

    query_id: int
    payload: bytes | None
    n_tokens: int


class CompletionPort(Protocol):
    """LoadGen, as the dispatcher sees it. Neither method raises, nor loses a batch for one of its samples.

    needs_first_tokens: each sample must have a first token before its completion, a failed one too. LoadGen's
    accuracy log reads the first token of every sample and crashes the process where there is none.
    """

    needs_first_tokens: bool

    def first_tokens(self, batch: Sequence[FirstToken]) -> None:
        """Report first tokens; before the samples' completions."""

    def complete(self, batch: Sequence[Finished]) -> Sequence[int]:
        """Complete samples; each once.

        Returns the query ids of samples that LoadGen took only as failed ones, without their answer.
        """


class RecordPort(Protocol):
    """Where a sample's row goes, once, when it is completed. `add` does not raise, whatever the row says."""

    def add(
        self,
        query_id: int,
        sample_index: int,
        server: int,
        n_attempts: int,
        issued_ns: int,
        sent_ns: int,
        first_byte_ns: int,
        first_token_ns: int,
        done_ns: int,
        n_input_tokens: int,
        n_tokens: int,
        failure: int,
        restarted: bool,
        finish_reason: str,
        attempts: list[Try] | None,
    ) -> None:
        """Keep one row; failure is a FailureKind or 0, times are monotonic nanoseconds."""


class LedgerPort(Protocol):
    """Where the counts of the test are kept for the case that its process dies. `write` does not raise."""

    def write(
        self, issued: int, completed: int, failed: int, attempts: int, retried: int, restarted_streams: int
    ) -> None:
        """Set all counts."""


class DelayPort(Protocol):
    """Where the time between an event on the wire and its report to LoadGen is counted."""

    def add(self, delay_ns: int, n: int) -> None:
        """Count n samples of a batch whose longest delay this is."""


class OutputPort(Protocol):
    """Where answers go that the user wants to keep."""

    def add(self, query_id: int, sample_index: int, payload: bytes | None) -> None:
        """Keep one answer."""
