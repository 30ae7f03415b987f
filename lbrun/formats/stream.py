"""Reads SSE streams of completions at the speed of bytes operations.

A token's event costs as much Python as its socket read allows, not more. So there are two ways to read:

- Until the first token, each event is read as JSON: that token's time is a metric, and most refusals come
  in its place.
- After it, whole reads are searched for an error, and only the last few events are kept. What they say
  (finish reason, usage, end mark) is read once, when the stream has ended. Where a payload is wanted,
  events are gathered and read in large blocks.
"""

from __future__ import annotations

from collections import deque

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats.bounds import Bounds
from lbrun.formats.payload import Payload
from lbrun.formats.reading import Reader, Reading, raise_if_error_body, to_answer
from lbrun.formats.sse import (
    BLANK_LINE,
    data_array,
    end_of_events,
    event_data,
    find_end_mark,
    is_end_mark,
    last_events,
    unify_line_ends,
)

# Finish reason, usage and end mark are the last three events; the rest is for comments among them.
_KEPT_EVENTS = 8
# A cumulative stream says all of that in one event, and its events are long.
_KEPT_CUMULATIVE_EVENTS = 3
# Reads up to this size are kept as they are, without looking for the events in them.
_SMALL_BLOCK_BYTES = 4096
# Gathered events are read by this many bytes: few calls, and raw bytes never pile up.
_READ_BLOCK_BYTES = 64 << 10
# A token may come in pieces, and events without one (role, finish, usage) are few.
_READS_PER_TOKEN, _SPARE_READS = 2, 64
_DATA = ord("d")  # how a line of data begins


class SseDecoder:
    """Reads one stream (see `lbrun.formats.api.StreamDecoder`).

    Lines may end with LF, CRLF or CR, and bytes may come in any split. The first token is counted when
    the event that carries it is complete.

    `finish` may find the first token itself, in a last event that lacks its blank line: `has_token` is to
    be looked at again after it.
    """

    __slots__ = (
        "_after_cr",
        "_bounds",
        "_first_payload",
        "_gather",
        "_gathered",
        "_gathered_bytes",
        "_ids",
        "_kept_events",
        "_max_content",
        "_max_event_bytes",
        "_max_gathered_bytes",
        "_partial",
        "_payload",
        "_reader",
        "_said",
        "_saw_event",
        "_tail",
        "_texts",
        "_unread_bytes",
        "ended",
        "error",
        "has_token",
        "n_content",
    )

    def __init__(
        self,
        reader: Reader,
        payload: Payload,
        bounds: Bounds,
        *,
        max_event_bytes: int,
        max_gathered_bytes: int,
    ) -> None:
        self.has_token = False
        self.ended = False
        self.n_content = 0
        self._max_content = _READS_PER_TOKEN * bounds.max_tokens + _SPARE_READS
        self.error: BadAnswer | None = None
        self._reader = reader
        self._payload = payload
        self._bounds = bounds
        self._max_event_bytes = max_event_bytes
        self._max_gathered_bytes = max_gathered_bytes
        self._partial = b""  # the start of an event that is not complete yet
        self._after_cr = False
        self._saw_event = False
        self._first_payload: bytes | None = None
        self._said = Reading()  # finish reason and counts so far
        self._kept_events = _KEPT_CUMULATIVE_EVENTS if reader.cumulative else _KEPT_EVENTS
        # each has at least one event, so that the last events of the stream are always among them
        self._tail: deque[bytes] = deque(maxlen=self._kept_events)
        self._gather = payload.wanted and not reader.cumulative
        self._gathered: list[bytes] = []
        self._gathered_bytes = self._unread_bytes = 0
        self._texts: list[str] = []
        self._ids: list[int] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body. Trouble is kept in `error`; nothing is read after it."""
        if self.error is not None or self.ended:
            return
        try:
            block = self._complete_events(data)
            if block:
                if self.has_token:
                    self._scan(block)
                else:
                    self._read_until_token(block)
        except BadAnswer as error:
            self.error = error

    def first_payload(self) -> bytes | None:
        """The first token's payload; None where payloads were not asked for."""
        return self._first_payload

    def goes_on_too_long(self) -> str | None:
        """Why the stream is to be cut off: it brings more than was asked for; None where it does not.

        Reads are counted, each of which has at least one event, as counting the events would cost more.
        """
        if self.n_content <= self._max_content:
            return None
        return f"the stream goes on beyond the {self._bounds.max_tokens} tokens that were asked for"

    def finish(self) -> Answer:
        """The answer, once the body has ended well. Raises BadAnswer where there is none."""
        self._read_unterminated_event()
        if self.error is not None:
            raise self.error
        self._read_tail()
        if not self.ended and self._said.finish_reason is None:
            raise BadAnswer(
                FailureKind.NO_END_MARK, "the stream ended without [DONE] and without a finish reason"
            )
        if not self.has_token and self._said.n_tokens is None:
            raise BadAnswer(FailureKind.EMPTY_ANSWER, "the stream has no token")
        self._read_gathered()
        said = self._said
        if self._gather:
            said = said._replace(text="".join(self._texts), ids=self._ids)
        return to_answer(said, self._payload, self._bounds)

    def _complete_events(self, data: bytes) -> bytes:
        """The events that are complete with these bytes, one after the other; keeps the rest."""
        if self._after_cr or b"\r" in data:
            data, self._after_cr = unify_line_ends(data, self._after_cr)
        carried = len(self._partial)
        if carried:
            data = self._partial + data
        end = end_of_events(data, carried)
        if end == len(data):
            self._partial = b""
            return data
        self._partial = data[end:]
        if len(self._partial) > self._max_event_bytes:
            raise BadAnswer(
                FailureKind.TOO_LARGE, f"an event of the stream exceeds {self._max_event_bytes} bytes"
            )
        return data[:end]

    def _read_until_token(self, block: bytes) -> None:
        """Read events one by one until the first token, and scan what follows."""
        start = 0
        while start < len(block):
            stop = block.find(BLANK_LINE, start)
            if stop < 0:
                return
            data = event_data(block[start:stop])
            start = stop + len(BLANK_LINE)
            if not data:
                continue
            self._saw_event = True
            self.n_content += 1
            if is_end_mark(data):
                self.ended = True
                return
            reading = self._reader.event(data)
            self._note(reading)
            if reading.has_token:
                self._first_payload = self._payload.first(reading.text, reading.ids)
                self.has_token = True
                self._texts.append(reading.text)
                self._ids.extend(reading.ids)
                if start < len(block):
                    self._scan(block[start:])
                return

    def _scan(self, block: bytes) -> None:
        """Take events after the first token, up to the end mark."""
        end = find_end_mark(block)
        if end >= 0:
            block = block[:end]
        if block:
            self._keep(block)
        self.ended = end >= 0

    def _keep(self, block: bytes) -> None:
        """Keep what will be needed of events after the first token, and look for an error in them."""
        if block[0] == _DATA or b"\ndata" in block:  # comments and blanks are no progress
            self.n_content += 1
        if self._gather:
            self._keep_all(block)
        kept = block
        if len(block) > _SMALL_BLOCK_BYTES:
            kept = last_events(block, self._kept_events)
        self._tail.append(kept)
        # Events of a cumulative stream may have 100 KB each; an error is short, and the last to come.
        searched = kept[-_SMALL_BLOCK_BYTES:] if self._reader.cumulative else block
        if b'"error"' in searched:
            self._read_suspects(kept if self._reader.cumulative else block)

    def _read_suspects(self, block: bytes) -> None:
        """Read those events that have "error" in them: as a key it is an error, within a text it is none."""
        for event in block.split(BLANK_LINE):
            if b'"error"' in event:
                data = event_data(event)
                if data:
                    self._reader.event(data)

    def _keep_all(self, block: bytes) -> None:
        """Gather events for the payload."""
        self._gathered.append(block)
        self._unread_bytes += len(block)
        self._gathered_bytes += len(block)
        if self._gathered_bytes > self._max_gathered_bytes:
            raise BadAnswer(FailureKind.TOO_LARGE, f"the stream exceeds {self._max_gathered_bytes} bytes")
        if self._unread_bytes > _READ_BLOCK_BYTES:
            self._read_gathered()

    def _read_gathered(self) -> None:
        """Read text and token ids out of the events gathered so far."""
        if not self._gathered:
            return
        text, ids = self._reader.pieces(data_array(b"".join(self._gathered)))
        self._gathered.clear()
        self._unread_bytes = 0
        self._texts.append(text)
        self._ids.extend(ids)

    def _read_tail(self) -> None:
        """Read the last events, the last one first, until all is known: most often that takes two of them."""
        if not self._tail:
            return
        latest: Reading | None = None
        for event in reversed(last_events(b"".join(self._tail), self._kept_events).split(BLANK_LINE)):
            data = event_data(event)
            if not data:
                continue
            reading = self._reader.event(data)
            latest = reading if latest is None else self._merged(reading, latest)
            if latest.finish_reason is not None and latest.n_tokens is not None:
                break
        if latest is not None:
            self._note(latest)

    def _note(self, reading: Reading) -> None:
        """Take over what an event says of the answer as a whole."""
        self._said = self._merged(self._said, reading)

    def _merged(self, earlier: Reading, later: Reading) -> Reading:
        """What two events say together: the later one overrules the earlier."""
        repeats_all = self._reader.cumulative
        return Reading(
            text=later.text if repeats_all else "",
            ids=later.ids if repeats_all else (),
            finish_reason=later.finish_reason or earlier.finish_reason,
            n_tokens=earlier.n_tokens if later.n_tokens is None else later.n_tokens,
            n_input_tokens=later.n_input_tokens or earlier.n_input_tokens,
        )

    def _read_unterminated_event(self) -> None:
        """Read what came after the last blank line, as an event whose blank line was spared.

        A body without any event is no stream: most of all, the error of a server that does not stream it.
        """
        rest = self._partial
        if self.error is not None or self.ended or not rest.strip():
            return
        if not self._saw_event and rest.lstrip().startswith(b"{"):
            raise_if_error_body(rest)
            raise BadAnswer(FailureKind.MALFORMED, "the server answered whole, where a stream was asked for")
        self._after_cr = False
        self.feed(BLANK_LINE)
