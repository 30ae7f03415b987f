"""How many probes may be under way: few that cost CPU time, and more that only wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 64
"""Probes that are making progress. More would only make each of them slower."""

HANGS_S = 0.25
"""A probe that is out for longer waits for its server, and costs nothing meanwhile."""

_MOST_HANGING = 128
"""A large pool whose servers all hang must not exhaust descriptors: so many besides those at once, and so
many again of servers that are known to hang."""


class ProbeSlots:
    """Lets servers that answer, or refuse, pass those that hang.

    A probe that hangs gives its slot to the next one. The server's next probe waits in a line of its own, so
    that hundreds of unreachable servers cannot hold up the probes of healthy ones.
    """

    def __init__(self) -> None:
        self._brisk = asyncio.Semaphore(AT_ONCE)
        self._known_to_hang = asyncio.Semaphore(_MOST_HANGING)
        self._hung: set[int] = set()
        self._n_hanging = 0

    @asynccontextmanager
    async def hold(self, server: int) -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the time of a probe of this server."""
        loop = asyncio.get_running_loop()
        if server in self._hung:
            async with self._known_to_hang:
                began_s = loop.time()
                yield
                if loop.time() - began_s < HANGS_S:
                    self._hung.discard(server)
            return
        await self._brisk.acquire()
        gave_back = False

        def give_back() -> None:
            nonlocal gave_back
            self._hung.add(server)
            if self._n_hanging < _MOST_HANGING:
                gave_back = True
                self._n_hanging += 1
                self._brisk.release()

        timer = loop.call_later(HANGS_S, give_back)
        try:
            yield
        finally:
            timer.cancel()
            if gave_back:
                self._n_hanging -= 1
            else:
                self._brisk.release()
