"""The progress of a run: a live bar on a terminal, plain lines elsewhere.

The caller brings snapshots, a few a second; nothing here has a thread or a timer of its own, and nothing
that goes wrong with the terminal reaches the run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from lbrun.results.wording import clean, count, duration, number, percent, short_url
from lbrun.terminal.output import is_terminal, show
from lbrun.terminal.repeats import RepeatFilter

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

LINE_INTERVAL_S = 5.0
FRAME_INTERVAL_S = 0.1
_MAX_SERVER_ROWS = 12
_LEVEL_STYLES = {"warning": "yellow", "error": "bold red"}
_STATE_STYLES = {"ready": "green", "trial": "yellow", "suspect": "yellow", "starting": "yellow"}


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """One server now. done, failed: attempts that ended there."""

    url: str
    state: str
    in_flight: int = 0
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run now.

    done: samples completed, with an answer or without; failed: those without. total: 0 where it is not
    known how many there will be. rate_per_s, tokens_per_s: samples and output tokens, over the last
    seconds. phase: what the run is doing, e.g. ``waiting for 3 servers``; "" while it is running.
    """

    done: int
    total: int
    rate_per_s: float = 0.0
    tokens_per_s: float = 0.0
    in_flight: int = 0
    failed: int = 0
    retried: int = 0
    servers: tuple[ServerSnapshot, ...] = ()
    phase: str = ""


class Progress:
    """Shows a run's progress until `close`; a context manager.

    total: samples to expect, 0: unknown; a snapshot's own total goes before it. servers: URLs, shown
    until the first snapshot. stream: standard error by default. clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        servers: Sequence[str],
        stream: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._total = total
        self._start_s = clock()
        self._last: Snapshot = Snapshot(
            0, total, servers=tuple(ServerSnapshot(url, "starting") for url in servers)
        )
        self._drawn: Snapshot | None = None
        self._shown_at_s: float | None = None
        self._shown_states: tuple[tuple[str, str], ...] = ()
        self._shown_phase = ""
        self._repeats = RepeatFilter()
        self._closed = False
        self._console: Console | None = None
        self._live: Live | None = None
        if is_terminal(self._stream):
            self._start_live()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot: the bar at most ten times a second, a line every 5 s and on changes of state."""
        if self._closed:
            return
        self._last = snapshot
        now_s = self._clock()
        self._show_repeats(now_s)
        states = tuple((server.url, server.state) for server in snapshot.servers)
        changed = states != self._shown_states or snapshot.phase != self._shown_phase
        interval_s = LINE_INTERVAL_S if self._live is None else FRAME_INTERVAL_S
        if self._shown_at_s is None or changed or now_s - self._shown_at_s >= interval_s:
            self._shown_at_s, self._shown_states, self._shown_phase = now_s, states, snapshot.phase
            self._draw()

    def note(self, text: str, level: str = "info") -> None:
        """Show a line of its own, above the bar. level: info, warning or error."""
        line = clean(text, 1000)
        if level != "info":
            line = f"{level}: {line}"
        if self._live is None or self._console is None:
            show(f"{line}\n", self._stream)
            return
        from rich.text import Text

        with _terminal_may_go_away():
            self._console.print(Text(line, style=_LEVEL_STYLES.get(level, "")), soft_wrap=True)

    def warn(self, key: str, text: str) -> None:
        """Show a warning that may come often: the first at once, the others counted every 10 s.

        key: what makes two of them the same, e.g. server and kind of failure.
        """
        line = self._repeats.offer(key, text, self._clock())
        if line is not None:
            self.note(line, "warning")

    def close(self) -> None:
        """Show the last state, and give the terminal back. May be called again."""
        if self._closed:
            return
        self._show_repeats(self._clock(), everything=True)
        if self._drawn is not None and self._drawn != self._last:
            self._draw()
        self._closed = True
        if self._live is not None:
            with _terminal_may_go_away():
                self._live.stop()

    def _start_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        with _terminal_may_go_away():
            self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
            self._live = Live(
                self._bar(),
                console=self._console,
                auto_refresh=False,  # no thread: it would compete with LoadGen's
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="ellipsis",
            )
            self._live.start()

    def _show_repeats(self, now_s: float, *, everything: bool = False) -> None:
        for line in self._repeats.due(now_s, everything=everything):
            self.note(line, "warning")

    def _draw(self) -> None:
        self._drawn = self._last
        if self._live is None:
            show(self._line() + "\n", self._stream)
        else:
            with _terminal_may_go_away():
                self._live.update(self._bar(), refresh=True)

    def _elapsed(self) -> str:
        return duration(self._clock() - self._start_s)

    def _known_total(self) -> int:
        return self._last.total or self._total

    def _figures(self) -> list[str]:
        now = self._last
        total = self._known_total()
        done = f"{count(now.done)} / {count(total)}" if total else count(now.done)
        if total:
            done += f" ({percent(min(1.0, now.done / total))})"
        figures = [
            done,
            f"{number(now.rate_per_s)} samples/s",
            f"{number(now.tokens_per_s)} tokens/s",
            f"{count(now.in_flight)} in flight",
            f"{count(now.failed)} failed",
        ]
        if now.retried:
            figures.append(f"{count(now.retried)} retried")
        return figures

    def _line(self) -> str:
        """All of it in one plain line."""
        now = self._last
        head = [f"[{self._elapsed()}]"]
        if now.phase:
            head.append(f"{clean(now.phase)};")
        by_state: dict[str, list[str]] = {}
        for server in now.servers:
            by_state.setdefault(server.state, []).append(short_url(server.url))
        servers = []
        for state, urls in by_state.items():
            # A name for the few that are not as they should be, a number for the many that are.
            named = state != "ready" and len(urls) <= 3
            servers.append(f"{len(urls)} {state}" + (f" ({', '.join(urls)})" if named else ""))
        figures = self._figures() if now.done or now.in_flight or not now.phase else []
        text = "; ".join(
            filter(None, [", ".join(figures), "servers: " + ", ".join(servers) if servers else ""])
        )
        return f"{' '.join(head)} {text}".rstrip("; ")

    def _bar(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._last
        total = self._known_total()
        top = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=total or None, completed=min(now.done, total), width=24, pulse=not total)
        top.add_row(Text(clean(now.phase) or "running", style="bold"), bar, Text(self._elapsed()))
        figures: list[Text] = [Text(" · ".join(self._figures()))]
        if now.failed:
            figures[0].stylize("red")
        grid = Table.grid(padding=(0, 2))
        for server in now.servers[:_MAX_SERVER_ROWS]:
            grid.add_row(
                Text(f"  {short_url(server.url)}"),
                Text(server.state, style=_STATE_STYLES.get(server.state, "red")),
                Text(f"{count(server.in_flight)} in flight"),
                Text(f"{count(server.done)} done"),
                Text(f"{count(server.failed)} failed" if server.failed else "", style="red"),
            )
        rest = len(now.servers) - _MAX_SERVER_ROWS
        more = [Text(f"  and {rest} more servers")] if rest > 0 else []
        return Group(top, *figures, grid, *more)


def _terminal_may_go_away() -> contextlib.suppress:
    """A closed window or a broken pipe must not end a run (ValueError: the stream is closed)."""
    return contextlib.suppress(OSError, ValueError)
