"""What the messages of a test's process look like to the user."""

from __future__ import annotations

import pytest

from lbrun.run.channel import Message
from lbrun.run.screen import Screen

URL = "http://a:8000"


def progress(at_s: float, done: int) -> Message:
    row = {"url": URL, "state": "ready", "in_flight": 3, "completed": done, "failed": 0}
    return {
        "type": "progress",
        "t_ns": int(at_s * 1e9),
        "done": done,
        "total": 400,
        "failed": 0,
        "retried": 0,
        "in_flight": 3,
        "output_tokens": 10 * done,
        "servers": [row],
    }


def test_the_last_lines_still_tell_the_rate_that_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen([URL]) as screen:
        screen.message({"type": "phase", "text": "running", "total": 400})
        screen.message(progress(10.0, 0))
        screen.message(progress(12.0, 400))
        screen.message({"type": "phase", "text": "writing the records"})
    *_, last = capsys.readouterr().err.splitlines()
    assert "writing the records; 400 / 400 (100.0 %), 200 samples/s, 2,000 tokens/s" in last
