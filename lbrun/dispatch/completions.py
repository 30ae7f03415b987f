"""What goes out of the dispatcher: first tokens and completions to LoadGen, rows to the records, and counts.

Here is the one place where a sample is completed, well or badly. LoadGen is told once per turn of the event
loop, of all that the turn has brought.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lbrun.attempt import AttemptResult, FailureKind
from lbrun.dispatch.ports import CompletionPort, DelayPort, Finished, FirstToken, OutputPort, RecordPort
from lbrun.dispatch.retry import History, Try
from lbrun.dispatch.sample import OpenSample

log = logging.getLogger("lbrun.dispatch")

_MAX_NAMED = 10
"""So many samples that were given up are named in the result; the records have them all."""
_MAX_REASONS = 100
_REFUSED = "LoadGen did not take the answer; see lbrun.log"


@dataclass(slots=True)
class Counts:
    """issued = completed + failed + open, at any time. Attempts count every request sent."""

    issued: int = 0
    completed: int = 0
    failed: int = 0
    attempts: int = 0
    retried: int = 0
    restarted_streams: int = 0
    late: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Completions:
    """errors: failed samples by reason. given_up: the first that failed by themselves, each with its reason.

    due: there is something to flush, or to do after a flush. on_due: called when it becomes so.
    """

    __slots__ = (
        "_delays", "_finished", "_first_token_delays", "_first_tokens", "_oldest_ns", "_on_due", "_outputs",
        "_port", "_records", "counts", "due", "errors", "given_up",
    )  # fmt: skip

    def __init__(
        self,
        port: CompletionPort,
        records: RecordPort,
        outputs: OutputPort | None,
        delays: DelayPort | None,
        first_token_delays: DelayPort | None,
        on_due: Callable[[], None],
    ) -> None:
        self._port, self._records, self._outputs, self._delays = port, records, outputs, delays
        self._first_token_delays = first_token_delays
        self._on_due = on_due
        self._first_tokens: list[FirstToken] = []
        self._finished: list[Finished] = []
        self._oldest_ns = 0  # the first event of the batch that waits for the flush
        self.due = False
        self.counts = Counts()
        self.errors: dict[str, int] = {}
        self.given_up: list[str] = []

    def request_flush(self, at_ns: int = 0) -> None:
        """See to it that there will be a flush. at_ns: when the event was, 0 for none of a server's."""
        if not self.due:
            self.due = True
            self._oldest_ns = at_ns
            self._on_due()

    def first_token(self, sample: OpenSample, at_ns: int, payload: bytes | None) -> None:
        """The sample has its first token, reported once whatever becomes of the attempt."""
        sample.first_token_ns = at_ns
        self._first_tokens.append(FirstToken(sample.query_id, payload))
        if not self.due:
            self.request_flush(at_ns)

    def answered(self, sample: OpenSample, result: AttemptResult) -> None:
        """Complete the sample."""
        server, history = sample.server, sample.history
        sent_ns, first_byte_ns, _, done_ns, answer = result
        if self._outputs is not None:
            self._outputs.add(sample.query_id, sample.sample_index, answer.payload)
        if history is None:
            self._records.add(
                sample.query_id, sample.sample_index, server, 1, sample.issued_ns, sent_ns, first_byte_ns,
                sample.first_token_ns, done_ns, answer.n_input_tokens, answer.n_tokens, 0, False,
                answer.finish_reason, None,
            )  # fmt: skip
        else:
            tries = [*history.tries, Try(server, sent_ns, done_ns, 0, "")]
            self._records.add(
                sample.query_id, sample.sample_index, server, len(tries), sample.issued_ns, sent_ns,
                first_byte_ns, sample.first_token_ns, done_ns, answer.n_input_tokens, answer.n_tokens, 0,
                history.restarts > 0, answer.finish_reason, tries,
            )  # fmt: skip
        # last, when nothing can raise any more: a sample that breaks above is completed as a failed one
        counts = self.counts
        counts.completed += 1
        counts.output_tokens += answer.n_tokens
        counts.input_tokens += answer.n_input_tokens
        self._finished.append(Finished(sample.query_id, answer.payload, answer.n_tokens))
        if not self.due:
            self.request_flush(done_ns)

    def failed(self, sample: OpenSample, reason: str) -> None:
        """Complete the sample as a failed one: LoadGen gets no bytes and no tokens, not even a first one."""
        history = sample.history or History()
        tries = history.tries
        kind = tries[-1].kind if tries else int(FailureKind.NOT_SENT)
        self.counts.failed += 1
        self._note_error(f"sample {sample.sample_index}: {reason}", reason)
        if self._port.needs_first_tokens and not sample.first_token_ns:
            self._first_tokens.append(FirstToken(sample.query_id, None))
        self._finished.append(Finished(sample.query_id, None, 0))
        self.request_flush()
        self._records.add(
            sample.query_id, sample.sample_index, sample.server, len(tries), sample.issued_ns,
            tries[0].sent_ns if tries else 0, 0, sample.first_token_ns, time.monotonic_ns(), 0, 0, kind,
            history.restarts > 0, "", tries or [Try(-1, 0, time.monotonic_ns(), kind, reason)],
        )  # fmt: skip

    def gave_up(self, sample: OpenSample, reason: str) -> None:
        """Complete a sample that failed by itself, and keep its name for the result."""
        if len(self.given_up) < _MAX_NAMED:
            self.given_up.append(f"sample {sample.sample_index}: {reason}")
        self.failed(sample, reason)

    def flush(self) -> None:
        """Hand over to LoadGen what has come since the last time."""
        self.due = False
        first, self._first_tokens = self._first_tokens, []
        done, self._finished = self._finished, []
        if first:
            self._port.first_tokens(first)
            if self._first_token_delays is not None and self._oldest_ns:
                self._first_token_delays.add(time.monotonic_ns() - self._oldest_ns, len(first))
        if done:
            refused = self._port.complete(done)
            if refused:
                self._take_back(refused)
            if self._delays is not None and self._oldest_ns:
                self._delays.add(time.monotonic_ns() - self._oldest_ns, len(done))

    def _take_back(self, refused: Sequence[int]) -> None:
        """Count samples as failed whose answers LoadGen did not take, although they had been counted in."""
        self.counts.completed -= len(refused)
        self.counts.failed += len(refused)
        self._note_error(f"queries {list(refused[:_MAX_NAMED])}: {_REFUSED}", _REFUSED, len(refused))

    def _note_error(self, line: str, reason: str, count: int = 1) -> None:
        n = self.errors.get(reason, 0)
        if n or len(self.errors) < _MAX_REASONS:
            self.errors[reason] = n + count
        if n < 3:
            log.error("%s", line)
