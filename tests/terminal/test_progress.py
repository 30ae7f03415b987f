"""Progress: plain lines where nobody watches, a bar on a terminal, and never a reason for a run to end."""

from __future__ import annotations

import io
import os
import pty
import re
import sys

import pytest

from lbrun.terminal.output import is_terminal, show
from lbrun.terminal.progress import Progress, ServerSnapshot, Snapshot

A, B = "http://a:8000", "http://b:8000"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _snapshot(done: int, a: str = "ready", b: str = "ready", **more: object) -> Snapshot:
    servers = (ServerSnapshot(A, a, 8, done, 0), ServerSnapshot(B, b, 4, 0, 2))
    return Snapshot(done, 1000, rate_per_s=12.34, tokens_per_s=5678.9, in_flight=12, servers=servers, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_line_comes_at_once_and_says_everything(clock: Clock) -> None:
    out = io.StringIO()
    Progress(1000, [A, B], out, clock=clock).update(_snapshot(250, failed=1, retried=3))
    assert out.getvalue() == (
        "[0.0 s] 250 / 1,000 (25.0 %), 12.3 samples/s, 5,679 tokens/s, 12 in flight, 1 failed, 3 retried; "
        "servers: 2 ready\n"
    )


def test_lines_come_every_five_seconds_at_most(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(1000, [A, B], out, clock=clock)
    for i in range(100):
        progress.update(_snapshot(i))
        clock.now_s += 0.25
    assert len(out.getvalue().splitlines()) == 5


def test_a_change_of_state_is_shown_at_once_and_names_the_server(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(1000, [A, B], out, clock=clock)
    progress.update(_snapshot(1))
    progress.update(_snapshot(2, b="ejected"))
    progress.update(_snapshot(3, b="ejected"))
    progress.update(_snapshot(4))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("servers: 1 ready, 1 ejected (b:8000)")


def test_a_phase_before_the_test_is_shown_instead_of_figures(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(0, [A, B], out, clock=clock)
    progress.update(Snapshot(0, 0, phase="waiting for 2 servers"))
    progress.update(Snapshot(0, 0, phase="reading the data"))
    assert out.getvalue().splitlines() == ["[0.0 s] waiting for 2 servers", "[0.0 s] reading the data"]


def test_closing_shows_the_last_state_once(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(1000, [A], out, clock=clock) as progress:
        progress.update(_snapshot(1))
        progress.update(_snapshot(1000))
    progress.close()
    progress.update(_snapshot(5))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "1,000 / 1,000 (100.0 %)" in lines[1]


def test_closing_does_not_repeat_what_is_shown_already(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(1000, [A], out, clock=clock) as progress:
        progress.update(_snapshot(1000, phase="writing the records"))
    assert len(out.getvalue().splitlines()) == 1


def test_nothing_is_drawn_for_a_run_that_never_began() -> None:
    out = io.StringIO()
    Progress(10, [A], out).close()
    assert out.getvalue() == ""


def test_notes_are_one_line_and_cannot_touch_the_terminal(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(10, [A], out, clock=clock)
    progress.note("all is \x1b[2Jwell\n[bold]really")
    progress.note("beware", "warning")
    assert out.getvalue() == "all is [2Jwell [bold]really\nwarning: beware\n"


def test_repeated_warnings_are_counted(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(1000, [A], out, clock=clock)
    progress.update(_snapshot(1))
    for _ in range(40):
        progress.warn("a refused", "a:8000 refused the connection")
    clock.now_s += 10
    progress.update(_snapshot(1))
    progress.warn("a refused", "a:8000 refused the connection")
    progress.close()
    warnings = [line for line in out.getvalue().splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: a:8000 refused the connection",
        "warning: a:8000 refused the connection (39 more like it in 10 s)",
        "warning: a:8000 refused the connection (1 more like it in 0 s)",
    ]


class _Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [_Gone(), open(os.devnull)])  # noqa: PTH123, SIM115
def test_a_stream_that_is_gone_does_not_end_the_run(stream: io.StringIO) -> None:
    stream.close()
    progress = Progress(10, [A], stream)
    progress.update(_snapshot(1))
    progress.note("x", "error")
    progress.close()


def test_a_stream_without_unicode_gets_what_it_can_show() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show("VALID · ok\n", stream)
    assert raw.getvalue() == b"VALID ? ok\n"


def test_show_writes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    show("hello\n")
    assert capsys.readouterr().out == "hello\n"
    assert not is_terminal(io.StringIO())
    assert sys.stdout is not None


def _on_terminal(act: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal of 100 columns receives."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        assert is_terminal(stream)
        act(stream)  # type: ignore[operator]
    received = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other side is closed and everything was read
            break
        if not data:
            break
        received += data
    os.close(master)
    return received.decode()


def test_a_terminal_gets_a_bar_with_the_servers_and_notes_above_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(stream: io.TextIOWrapper) -> None:
        with Progress(1000, [A, B], stream, clock=clock) as progress:
            progress.update(_snapshot(250, b="ejected"))
            progress.note("b:8000 [bold]left[/bold] service", "warning")
            progress.update(_snapshot(251))  # too soon after the last frame, but a state has changed
            progress.update(_snapshot(252))
            clock.now_s += 1
            progress.update(_snapshot(900))

    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", _on_terminal(act, monkeypatch))
    assert "250 / 1,000 (25.0 %) · 12.3 samples/s · 5,679 tokens/s · 12 in flight" in text
    assert re.search(r"b:8000 +ejected", text)
    assert "warning: b:8000 [bold]left[/bold] service" in text
    assert "251 / 1,000" in text
    assert "252 / 1,000" not in text
    assert "900 / 1,000" in text


def test_the_cursor_is_given_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(stream: io.TextIOWrapper) -> None:
        progress = Progress(1000, [A, B], stream, clock=clock)
        progress.update(_snapshot(1))
        progress.close()

    text = _on_terminal(act, monkeypatch)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_pool_larger_than_the_window_is_cut_short(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = tuple(ServerSnapshot(f"http://s{i}:1", "ready") for i in range(100))

    def act(stream: io.TextIOWrapper) -> None:
        with Progress(0, [], stream, clock=clock) as progress:
            progress.update(Snapshot(5, 0, servers=servers))

    text = _on_terminal(act, monkeypatch)
    assert "and 88 more servers" in text
    assert "s11:1" in text
    assert "s12:1" not in text
