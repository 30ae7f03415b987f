"""Runs one embedded server on a bound socket until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn
import uvloop

from lbrun.embedded.app import EmbeddedApp
from lbrun.embedded.connection import Connection
from lbrun.embedded.settings import ServerSettings
from lbrun.lifeline import die_at_end_of_stdin

_GOODBYES_S = 0.05  # for the last words of open streams


class _Server(uvicorn.Server):
    """Ends quietly on SIGTERM, SIGINT and SIGHUP, with status 0; it waits for no client."""

    on_end: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # as under nohup
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.on_end()
        self.should_exit = True
        asyncio.get_running_loop().call_later(_GOODBYES_S, self._close_all)

    def _close_all(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def serve(settings: ServerSettings, bound: socket.socket, *, watch_stdin: bool) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP. watch_stdin: also end when standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, bound, watch_stdin=watch_stdin))


async def _serve(settings: ServerSettings, bound: socket.socket, *, watch_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    if watch_stdin:
        die_at_end_of_stdin(loop)
    app = EmbeddedApp(settings, loop)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # it may be a float
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    server.on_end = app.die
    gc.collect()
    gc.freeze()  # what is loaded by now stays: no later collection has to look at it
    await server.serve(sockets=[bound])
