"""Starts, ends and restarts the embedded servers of a run, each in a process of its own."""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import lbrun
from lbrun.embedded.binding import bind
from lbrun.embedded.settings import EmbeddedSettings

_END_TIMEOUT_S = 3.0  # a server that has not ended by then is killed

Bind: TypeAlias = Callable[[int, int], socket.socket]


def _on_loopback(index: int, port: int) -> socket.socket:
    return bind(port)


class EmbeddedPool:
    """The servers of `settings` on free ports of 127.0.0.1, their output in ``log_dir/embedded-N.log``.

    A server can be killed and restarted on its port; while it is gone, connections to it are refused.
    None of them outlives this process, however that ends (see `lbrun.lifeline`), and the
    terminal's Ctrl-C does not reach them: they are in sessions of their own, `stop` ends them.

    environ: of the servers' processes; by default this one's.

    bind: makes the socket of server `index`, bound to `port` (0: any free one) and not listening; for servers
    in a network of their own.

    Methods are meant for one thread at a time.
    """

    def __init__(
        self,
        settings: EmbeddedSettings,
        log_dir: Path,
        *,
        environ: Mapping[str, str] | None = None,
        bind: Bind = _on_loopback,
    ) -> None:
        self._settings, self._bind = settings, bind
        self._environ = os.environ if environ is None else environ
        self._log_dir = log_dir
        self._held: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._launcher: ThreadPoolExecutor | None = None
        self._launched: Future[subprocess.Popen[bytes]] | None = None

    def start(self) -> list[str]:
        """Start all servers; their base URLs, at once. They answer a moment later (poll /health)."""
        if self._launcher is not None:
            raise RuntimeError("the pool has been started already")
        self._log_dir.mkdir(parents=True, exist_ok=True)
        # the kernel ends a child with the *thread* that started it: so that is one that lives with the pool
        self._launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-launcher")
        try:
            for index in range(self._settings.count):
                self._held.append(self._bind(index, 0))
                self._processes.append(self._launch(index))
        except BaseException:
            self.stop()
            raise
        return self.urls

    @property
    def urls(self) -> list[str]:
        """The servers' base URLs."""
        return ["http://{}:{}".format(*held.getsockname()) for held in self._held]

    def pid(self, index: int) -> int:
        """The process id of a server, also of one that has ended."""
        return self._processes[index].pid

    def alive(self, index: int) -> bool:
        """Whether the server's process exists (it may be stopped, or not yet listening)."""
        return self._processes[index].poll() is None

    def kill(self, index: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a server. After SIGKILL its port refuses connections when this returns."""
        process = self._processes[index]
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()

    def restart(self, index: int) -> None:
        """Start the server anew on its port; one that is still there is killed first."""
        self.kill(index)
        _close_stdin(self._processes[index])
        self._processes[index] = self._launch(index)

    def stop(self) -> None:
        """End all servers and wait for their end; harmless when called again."""
        if self._launched is not None and self._launched.exception() is None:
            process = self._launched.result()
            if process not in self._processes:  # a Ctrl-C came while it was started
                self._processes.append(process)
        self._launched = None
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped process would not see the other one
        for process in self._processes:
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close_stdin(process)
        for held in self._held:
            held.close()
        self._processes, self._held = [], []
        if self._launcher is not None:
            self._launcher.shutdown()
            self._launcher = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, index: int) -> subprocess.Popen[bytes]:
        # The pool keeps a socket of its own bound to the port, which never listens: it keeps the port from
        # everybody else while the server is gone, and still lets the kernel refuse connections then.
        port = self._held[index].getsockname()[1]
        assert self._launcher is not None  # noqa: S101 - for the type checker: start() has set it
        with ExitStack() as stack:
            bound = stack.enter_context(self._bind(index, port))
            log = stack.enter_context((self._log_dir / f"embedded-{index}.log").open("ab"))
            command = [sys.executable, "-P", "-m", "lbrun.embedded"]
            command += ["--fd", str(bound.fileno()), "--parent-pid", str(os.getpid())]
            command += self._settings.server(index).to_arguments()
            self._launched = self._launcher.submit(
                lambda: subprocess.Popen(  # noqa: S603 - our own module, no shell, validated settings
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(bound.fileno(),),
                    env=_environment(self._environ),
                    start_new_session=True,
                )
            )
            return self._launched.result()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, in which a child finds lbrun also where it runs from a checkout."""
    environment = dict(environ)
    root = str(Path(lbrun.__file__).resolve().parents[1])
    if root not in site.getsitepackages():
        paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
