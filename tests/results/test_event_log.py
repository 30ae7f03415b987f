"""The event log: whole lines, and no trouble for the run."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

from lbrun.results.events import FILE_NAME, EventLog, read_events


def test_each_event_is_one_line_with_both_clocks(tmp_path: Path) -> None:
    log = EventLog(tmp_path, time.monotonic_ns() - 2_000_000_000)
    log.write("state", server="http://a:1", reason="line\nbreak", **{"from": "ready", "to": "ejected"})
    log.write("end")
    log.close()
    lines = (tmp_path / FILE_NAME).read_text().splitlines()
    assert len(lines) == 2
    event = json.loads(lines[0])
    assert event["event"] == "state"
    assert event["server"] == "http://a:1"
    assert event["reason"] == "line\nbreak"
    assert event["to"] == "ejected"
    assert event["t_s"] >= 2
    assert datetime.fromisoformat(event["ts"]).tzinfo is not None


def test_a_line_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("begin")
    assert [event["event"] for event in read_events(tmp_path)] == ["begin"]
    log.close()


def test_a_cut_last_line_and_a_missing_file_are_no_trouble(tmp_path: Path) -> None:
    assert list(read_events(tmp_path)) == []
    (tmp_path / FILE_NAME).write_bytes(b'{"event": "a"}\n\xff\xfe\n[1]\n{"event": "b')
    assert [event["event"] for event in read_events(tmp_path)] == ["a"]


def test_a_full_disk_stops_the_log_and_not_the_run() -> None:
    log = EventLog(Path("/nonexistent"))
    log.write("state")
    log.close()
    assert log.error is not None
    assert log.n_lost == 1

    full = EventLog.__new__(EventLog)
    EventLog.__init__(full, Path("/nonexistent"))
    full.error = None
    full._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    full.write("state")
    full.write("state")
    full.close()
    assert "No space left" in str(full.error)
    assert full.n_lost == 2


def test_events_after_the_end_are_dropped(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.close()
    log.close()
    log.write("late")
    assert log.error is None
    assert list(read_events(tmp_path)) == []
