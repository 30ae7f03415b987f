"""The attempt loop: attempts go out on kept-alive connections and come back as results or failures.

It runs on whatever event loop it is started on: that of the main process, or that of a worker process.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Sequence
from time import monotonic_ns

from lbrun.attempt import AttemptFailure, AttemptResult, AttemptSink, BadAnswer, FailureKind
from lbrun.formats.api import RequestFormat
from lbrun.transport.connection import Connection
from lbrun.transport.deadlines import Deadlines, Overdue
from lbrun.transport.dial import Dialer, DialError
from lbrun.transport.dial_queue import DialQueue
from lbrun.transport.endpoint import Endpoint, make_ssl_context
from lbrun.transport.lane import Lane, Waiting
from lbrun.transport.pairing import COMPARED
from lbrun.transport.patience import Patience
from lbrun.transport.refusal import header, refusal_message, retry_after_s
from lbrun.transport.settings import Limits, Timeouts
from lbrun.transport.statuses import kind_of_status
from lbrun.transport.sweeper import Sweeper

log = logging.getLogger(__name__)


class InlineWorker:
    """Carries attempts out on the running event loop; a `lbrun.attempt.Worker`.

    Also a `lbrun.transport.connection.ConnectionOwner`: those methods are for connections only.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        bodies: Sequence[bytes | memoryview],
        request_format: RequestFormat,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        prompt_lengths: Sequence[int] | None = None,
    ) -> None:
        """endpoints: the pool, in the order of its indexes. bodies: prepared requests, by sample index;
        looked up at each submission; memoryviews are of bytes. tls: for https servers; the default trusts
        the system's authorities. prompt_lengths: of the bodies, in tokens, where prompts are token ids.
        """
        self._timeouts, self._limits = timeouts or Timeouts(), limits or Limits()
        if tls is None and any(endpoint.tls for endpoint in endpoints):
            tls = make_ssl_context()
        connect_s = self._timeouts.connect_s
        id_prefix = b"lbrun-%b-" % secrets.token_hex(6).encode()  # no two workers send the same id
        self._lanes = [Lane(i, e, Dialer(e, tls, connect_s), id_prefix) for i, e in enumerate(endpoints)]
        self._prompt_lengths = prompt_lengths
        self._dials = DialQueue(self._limits, self._make, self._made, self._not_made)
        self._bodies = bodies
        self._decode = request_format.decode
        self._new_decoder = request_format.stream_decoder if request_format.stream else None
        self._keepalive_ns = int(self._timeouts.keepalive_s * 1e9)
        self._patience = Patience(request_format.max_tokens, 2 * (self._timeouts.idle_s or 60.0))
        self._deadlines = Deadlines(
            self._timeouts, self._patience if self._timeouts.total_s is None else None
        )
        self._last_result: AttemptResult | None = None  # since the last sweep
        # a little less than the timeout, as the loop's timers come up to a few milliseconds early
        self._waited_out_ns = int(connect_s * 0.9e9)

        # every attempt that is not reported yet, and where it is: leaving this map is what happens once
        self._open: dict[int, Connection | Lane] = {}
        self._connections: set[Connection] = set()
        self._closed = self._crash_logged = False
        self._sink: AttemptSink
        self._sweeper = Sweeper(self._timeouts.sweep_interval_s(), self._end_overdue)
        self._lost = asyncio.Event()

    # ---- Worker: called by the dispatcher

    def start(self, sink: AttemptSink) -> None:
        """Begin to work on the running event loop."""
        self._sink = sink
        self._sweeper.start()

    def submit(self, attempt_id: int, sample_index: int, server: int, fresh: bool = False) -> None:
        """Send the sample's body to the server now, or as soon as there is a connection."""
        if self._closed:
            raise RuntimeError("the worker is closed")
        lane, body = self._lanes[server], self._bodies[sample_index]
        now_ns = monotonic_ns()
        if lane.idle and not fresh:
            connection = lane.idle.popitem()[0]
            if now_ns - connection.last_byte_ns < self._keepalive_ns:
                self._open[attempt_id] = connection
                connection.send(attempt_id, sample_index, body, now_ns, True)
                return
            connection.close()
            lane.close_idle()  # the last used was on top, so all others are older
        self._open[attempt_id] = lane
        (lane.fresh_line if fresh else lane.line)[attempt_id] = Waiting(sample_index, now_ns)
        self._dials.serve(lane)

    def flush(self) -> None:
        """Nothing is held back here."""

    def cancel(self, attempt_id: int) -> None:
        """Drop the attempt and close its connection; it is not reported any more."""
        place = self._open.pop(attempt_id, None)
        if isinstance(place, Connection):
            place.close()
        elif place is not None:
            place.leave_line(attempt_id)

    def evict(self, server: int) -> None:
        """Fail (EVICTED) what has nothing of an answer from the server; drop connections at rest."""
        lane = self._lanes[server]
        self._dials.stop(lane)
        lane.close_idle()
        now_ns = monotonic_ns()
        for attempt_id in [i for i, place in self._open.items() if _is_empty_at(place, lane)]:
            # asked again, since each report may have cancelled others of the list
            if _is_empty_at(self._open.get(attempt_id), lane):
                self._fail(attempt_id, FailureKind.EVICTED, "taken back from an ejected server", now_ns)

    def last_byte_ns(self, server: int) -> int:
        """When the server last sent a byte of any answer, 0 if never."""
        return self._lanes[server].last_byte_ns

    def unasked_answers(self) -> list[int]:
        """How many answers each server has sent that nobody had asked for."""
        return [lane.n_unasked for lane in self._lanes]

    async def close(self) -> None:
        """Close all connections; what is still open is not reported any more."""
        self._closed = True
        self._sweeper.stop()
        self._open.clear()
        for lane in self._lanes:
            lane.line.clear()
            lane.fresh_line.clear()
            lane.idle.clear()
        await self._dials.close(self._lanes)
        for connection in self._connections:
            connection.close()
        while self._connections:
            self._lost.clear()
            await self._lost.wait()

    # ---- ConnectionOwner: called by connections

    def lost(self, connection: Connection) -> None:
        """Forget the connection."""
        self._connections.discard(connection)
        lane = connection.lane
        lane.n_open -= 1
        if lane.held and not lane.n_open:
            self._dials.release(lane)  # nothing is left for the line to ride on
        self._lost.set()

    def stream_began(self, connection: Connection, start: bytes) -> None:
        """Check that the stream belongs to its request. Raises BadAnswer."""
        self._check_pairing(connection, start)

    def unasked(self, connection: Connection) -> None:
        """Distrust the server from now on: what came on its used connections may be another's answer."""
        lane = connection.lane
        lane.n_unasked += 1
        if not lane.distrusted:
            lane.distrusted = True
            log.warning("%s sent an answer that nobody had asked for", lane.endpoint.url)
            asyncio.get_running_loop().call_soon(self._distrust, lane)

    def first_token(self, connection: Connection) -> None:
        """Report the first token of a stream."""
        decoder = connection.decoder
        if decoder is not None:
            payload = decoder.first_payload()
            self._sink.first_token(connection.attempt_id, connection.first_token_ns, payload)

    def answered(self, connection: Connection) -> None:
        """Read the answer, give the connection back, report."""
        http, attempt_id = connection.answer, connection.attempt_id
        if http.status != 200:
            message = refusal_message(http.status, http.headers, http.body())
            wish_s = retry_after_s(header(http.headers, b"retry-after"))
            self._fail_on(connection, kind_of_status(http.status), message, wish_s)
            return
        try:
            if self._new_decoder is None:
                body = http.body()
                self._check_pairing(connection, body)
                answer = self._decode(body)
            else:
                decoder = connection.decoder or self._new_decoder()
                answer = decoder.finish()
                if not connection.first_token_ns and decoder.has_token:
                    # it was in a last event without its end, which only `finish` reads
                    connection.first_token_ns = connection.last_byte_ns
                    self.first_token(connection)
                    if attempt_id not in self._open:
                        return
            if self._prompt_lengths is not None and answer.n_input_tokens:
                length = self._prompt_lengths[connection.sample]
                connection.lane.pairing.check_prompt(length, answer.n_input_tokens, connection.reused)
        except BadAnswer as bad:
            if bad.kind is FailureKind.MISMATCH:
                http.keep_alive = False  # what follows would be another's as well
            self._fail_on(connection, bad.kind, bad.message)
            return
        result = AttemptResult(
            connection.sent_ns,
            connection.first_byte_ns,
            connection.first_token_ns,
            connection.last_byte_ns,
            answer,
        )
        self._last_result = result
        del self._open[attempt_id]
        self._give_back(connection)
        try:
            self._sink.completed(attempt_id, result)
        except Exception:
            log.exception("the report of a completed attempt raised")

    def broken(self, connection: Connection, kind: FailureKind, message: str) -> None:
        """Report the failure; one stale connection says that all at rest are."""
        if kind is FailureKind.STALE_CONNECTION:
            connection.lane.close_idle()
        self._fail_on(connection, kind, message)

    def crashed(self, connection: Connection, attempt_id: int, error: Exception) -> None:
        """Contain an exception that nothing should have raised: the run goes on without that attempt."""
        if not self._crash_logged:
            self._crash_logged = True
            log.error(
                "unexpected error while reading an answer; the next ones are not logged", exc_info=error
            )
        if self._open.get(attempt_id) is connection:
            message = f"the answer could not be read: {type(error).__name__}: {error}"
            self._fail(attempt_id, FailureKind.MALFORMED, message, monotonic_ns())

    # ---- whose answers they are

    def _check_pairing(self, connection: Connection, start: bytes) -> None:
        lane = connection.lane
        pairing = lane.pairing
        if pairing.looks_at_id:
            pairing.check_id(lane.request_id % connection.attempt_id, connection.answer.headers, start)
        if pairing.compares:
            start, last = start[:COMPARED], connection.said
            connection.said = (start, connection.sample)
            pairing.check_repeat(start, connection.sample, last)

    def _distrust(self, lane: Lane) -> None:
        """Take back what waits for an answer on used connections, and use none twice."""
        lane.close_idle()
        now_ns, message = monotonic_ns(), "the server sends answers that nobody asked for"
        for attempt_id, place in list(self._open.items()):
            if not isinstance(place, Connection) or place.lane is not lane or not place.reused:
                continue
            if self._open.get(attempt_id) is place:  # a report may have cancelled others of the list
                self._fail(attempt_id, FailureKind.MISMATCH, message, now_ns)

    # ---- the ends of attempts

    def _fail(self, attempt_id: int, kind: FailureKind, message: str, now_ns: int) -> None:
        """End an attempt for reasons outside of its connection, which is closed."""
        place = self._open.pop(attempt_id)
        if isinstance(place, Connection):
            failure = _failure(place, kind, message, now_ns, None)
            place.close()
        else:
            failure = AttemptFailure(kind, place.endpoint.redact(message), now_ns)
            place.leave_line(attempt_id)
        self._report(attempt_id, failure)

    def _fail_on(
        self, connection: Connection, kind: FailureKind, message: str, wish_s: float | None = None
    ) -> None:
        """End an attempt by what its connection brought; a connection that is in order is kept."""
        attempt_id = connection.attempt_id
        failure = _failure(connection, kind, message, monotonic_ns(), wish_s)
        del self._open[attempt_id]
        self._give_back(connection)
        self._report(attempt_id, failure)

    def _report(self, attempt_id: int, failure: AttemptFailure) -> None:
        try:
            self._sink.failed(attempt_id, failure)
        except Exception:
            log.exception("the report of a failed attempt raised")

    # ---- connections come and go

    def _make(self, lane: Lane) -> Connection:
        return Connection(self, lane, self._limits, self._new_decoder)

    def _made(self, connection: Connection) -> None:
        self._connections.add(connection)
        connection.lane.n_open += 1
        if self._closed:
            connection.close()
            return
        connection.last_byte_ns = monotonic_ns()  # as good as used, should it rest
        self._send_next(connection, new=True)

    def _give_back(self, connection: Connection) -> None:
        if connection.release():
            self._send_next(connection, new=False)
        else:
            self._dials.serve(connection.lane)

    def _send_next(self, connection: Connection, *, new: bool) -> None:
        """Let the connection carry the next attempt in line, or rest."""
        lane = connection.lane
        following = lane.take(new_connection=new)
        if following is None:
            lane.idle[connection] = None
            return
        attempt_id, waiting = following
        self._open[attempt_id] = connection
        sample = waiting.sample
        connection.send(attempt_id, sample, self._bodies[sample], monotonic_ns(), not new)

    def _not_made(self, lane: Lane, error: DialError) -> None:
        now_ns = monotonic_ns()
        if error.kind is FailureKind.LOCAL and lane.n_open and not lane.fresh_line:
            # no descriptor or port is left: the line rides on the connections that are there, in turn
            self._dials.hold(lane)
            return
        if error.kind is FailureKind.DNS:  # true for all in line
            stricken = lane.all_in_line()
        elif error.kind is FailureKind.CONNECT_TIMEOUT:  # for all who have waited as long
            stricken = lane.all_in_line(since_before_ns=now_ns - self._waited_out_ns)
        else:
            stricken = lane.first_in_line()
        for attempt_id in stricken:
            if self._open.get(attempt_id) is lane:  # a report may have cancelled it
                self._fail(attempt_id, error.kind, error.message, now_ns)

    # ---- deadlines

    def _end_overdue(self, now_ns: int) -> None:
        """End the attempts whose time was over then: the only work that grows with what is in flight."""
        overdue, look_after_ns = self._deadlines.overdue, self._deadlines.look_after_ns
        last, self._last_result = self._last_result, None
        if last is not None:
            self._patience.note(last.done_ns - last.sent_ns, last.answer.n_tokens)
        for attempt_id, place in list(self._open.items()):
            if not isinstance(place, Connection):
                continue
            decoder, excess = place.decoder, None
            if place.first_byte_ns and now_ns - place.content_ns > look_after_ns:
                place.look_for_content()
                excess = decoder.goes_on_too_long() if decoder is not None else None
            missed = overdue(
                now_ns,
                place.sent_ns,
                place.first_byte_ns,
                place.last_byte_ns,
                place.content_ns,
                decoder is not None and decoder.ended,
                place.answer.status,
            )
            if excess is not None:
                missed = Overdue(FailureKind.IMPLAUSIBLE, excess)
            if missed is None or self._open.get(attempt_id) is not place:
                continue
            if missed.kind is not None:
                self._fail(attempt_id, missed.kind, missed.message, now_ns)
            else:
                place.conclude()


def _failure(
    connection: Connection, kind: FailureKind, message: str, now_ns: int, wish_s: float | None
) -> AttemptFailure:
    return AttemptFailure(
        kind=kind,
        message=connection.lane.endpoint.redact(message),
        at_ns=now_ns,
        sent_ns=connection.sent_ns,
        sent=True,
        any_byte=connection.first_byte_ns != 0,
        reused=connection.reused,
        status=connection.answer.status,
        retry_after_s=wish_s,
        first_token_ns=connection.first_token_ns,
    )


def _is_empty_at(place: Connection | Lane | None, lane: Lane) -> bool:
    """The attempt in this place is for the lane's server, and has nothing of an answer.

    Interim heads are nothing, and so is a stream's head, which vLLM sends before it begins to work.
    """
    if isinstance(place, Connection):
        return place.lane is lane and place.is_empty
    return place is lane
