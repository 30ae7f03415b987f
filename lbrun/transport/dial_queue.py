"""How many connections are made at a time, and for whom."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from lbrun.attempt import FailureKind
from lbrun.transport.connection import Connection
from lbrun.transport.dial import SLOW_S, DialError
from lbrun.transport.lane import Lane
from lbrun.transport.settings import Limits

log = logging.getLogger(__name__)

HOLD_S = 0.5


class DialQueue:
    """Makes connections for lanes whose attempts wait for one; servers take turns.

    Making one takes a task and, with TLS, real work, so only so many are made at a time: ten thousand at
    once would leave no time to finish any. One that hangs costs nothing and soon makes room for others, so
    that servers that swallow packets do not hold the rest up.

    make: a connection for the lane, not open yet. made: takes it over, open. failed: is told why there is
    none. All are called on the event loop.
    """

    def __init__(
        self,
        limits: Limits,
        make: Callable[[Lane], Connection],
        made: Callable[[Connection], None],
        failed: Callable[[Lane, DialError], None],
    ) -> None:
        self._limits, self._make, self._made, self._failed = limits, make, made, failed
        self._lanes: deque[Lane] = deque()
        self._n_dialing = 0  # those that hang are not counted
        self._closed = False

    def serve(self, lane: Lane) -> None:
        """See to it that every attempt in the lane's line will get a connection."""
        if lane.wants_connection() and not lane.in_dial_queue:
            lane.in_dial_queue = True
            self._lanes.append(lane)
            self._proceed()

    def hold(self, lane: Lane) -> None:
        """Make no connection for the lane for a while: this machine has nothing left to make one of."""
        lane.held = True
        asyncio.get_running_loop().call_later(HOLD_S, self.release, lane)

    def release(self, lane: Lane) -> None:
        """Make connections again."""
        lane.held = False
        if not self._closed:
            self.serve(lane)

    def stop(self, lane: Lane) -> None:
        """Give up the connections that are being made for the lane."""
        for task in lane.dialing:
            task.cancel()

    async def close(self, lanes: list[Lane]) -> None:
        """Give up all connections that are being made, and wait until they are gone."""
        self._closed = True
        tasks = [task for lane in lanes for task in lane.dialing]
        for lane in lanes:
            self.stop(lane)
            lane.dialer.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _proceed(self) -> None:
        while self._lanes and self._n_dialing < self._limits.max_connecting:
            lane = self._lanes.popleft()
            if lane.wants_connection() and len(lane.dialing) < self._limits.max_connecting_per_server:
                self._dial(lane)
                self._lanes.append(lane)
            else:
                lane.in_dial_queue = False

    def _dial(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(lane.dialer.dial(lambda: self._make(lane)))
        lane.dialing.add(task)
        self._n_dialing += 1
        counted = True

        def discount() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._n_dialing -= 1
                self._proceed()

        timer = loop.call_later(SLOW_S, discount)

        def ended(task: asyncio.Task[Connection]) -> None:
            timer.cancel()
            lane.dialing.discard(task)
            if not task.cancelled():
                self._hand_over(lane, task)
            if not self._closed:
                self.serve(lane)
                discount()

        task.add_done_callback(ended)

    def _hand_over(self, lane: Lane, task: asyncio.Task[Connection]) -> None:
        error = task.exception()
        if error is None:
            connection = task.result()
            if not connection.closed:
                self._made(connection)
                return
            error = DialError(
                FailureKind.LOST_BEFORE_BYTE, "the server closed the connection before the request was sent"
            )
        elif not isinstance(error, DialError):
            log.error("unexpected error while connecting to %s", lane.endpoint.url, exc_info=error)
            error = DialError(FailureKind.REFUSED, f"no connection: {type(error).__name__}: {error}")
        self._failed(lane, error)
