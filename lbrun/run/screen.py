"""The messages of a test's process, as progress on the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from lbrun.run.channel import Message
from lbrun.terminal.progress import Progress, ServerSnapshot, Snapshot

_RATE_WINDOW_S = 5.0
_BAD_STATES = frozenset({"suspect", "ejected", "excluded"})


class Screen:
    """Shows what `Supervisor.run` passes on. A context manager."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._progress = Progress(0, urls)
        self._servers = tuple(ServerSnapshot(url, "starting") for url in urls)
        self._last = Snapshot(0, 0, servers=self._servers)
        self._history: deque[tuple[float, int, int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.close()

    def message(self, message: Message) -> None:
        """Take one message of the child."""
        kind = message.get("type")
        if kind == "phase":
            self._phase(message)
        elif kind == "progress":
            self._snapshot(message)
        elif kind == "server":
            self._server(message)
        elif kind == "note":
            self._progress.warn(message["text"], message["text"])

    def _phase(self, message: Message) -> None:
        last = self._last
        text = str(message["text"])
        total = int(message.get("total", last.total))
        self._show(replace(last, total=total, servers=self._servers, phase="" if text == "running" else text))

    def _snapshot(self, message: Message) -> None:
        now_s, done, tokens = message["t_ns"] / 1e9, message["done"], message["output_tokens"]
        history = self._history
        history.append((now_s, done, tokens))
        while len(history) > 2 and now_s - history[0][0] > _RATE_WINDOW_S:
            history.popleft()
        then_s, done_then, tokens_then = history[0]
        span_s = max(now_s - then_s, 1e-9)
        self._servers = tuple(
            ServerSnapshot(
                url=row["url"],
                state=row["state"],
                in_flight=row["in_flight"],
                done=row["completed"] + row["failed"],
                failed=row["failed"],
            )
            for row in message["servers"]
        )
        self._show(
            Snapshot(
                done=done,
                total=message["total"],
                rate_per_s=(done - done_then) / span_s if len(history) > 1 else 0.0,
                tokens_per_s=(tokens - tokens_then) / span_s if len(history) > 1 else 0.0,
                in_flight=message["in_flight"],
                failed=message["failed"],
                retried=message["retried"],
                servers=self._servers,
                phase=self._last.phase,
            )
        )

    def _server(self, message: Message) -> None:
        url, state, reason = message["url"], message["to"], message["reason"]
        self._servers = tuple(
            ServerSnapshot(s.url, state, s.in_flight, s.done, s.failed) if s.url == url else s
            for s in self._servers
        )
        text = f"{url}: {message['from']} -> {state}" + (f": {reason}" if reason else "")
        if state in _BAD_STATES:
            self._progress.warn(f"{url} {state}", text)
        elif message["from"] in ("ejected", "trial"):
            self._progress.note(text)

    def _show(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        self._progress.update(snapshot)
