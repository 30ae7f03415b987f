"""Runs as they would be left behind, made by hand, so that each lie in them can be told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbrun.attempt import FailureKind
from lbrun.embedded.journal import Entries, answer_key
from lbrun.embedded.settings import EmbeddedSettings
from lbrun.faults.evidence import Evidence, Mark
from lbrun.faults.right_answers import right_answers
from lbrun.faults.scenario import Mode
from lbrun.results.records import Recorder

START_NS = 10**12
MS = 10**6
URLS = ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
WALL_S = 1_790_000_000.0
SERVERS = EmbeddedSettings(count=2)
CONFIG: dict[str, Any] = {
    "model": {
        "payload": "token_ids",
        "bundled_data": "llama3_1_8b",
        "sampling": {"seed": 42, "min_tokens": 1, "max_tokens": 128},
    },
    "dataset": {"path": None, "max_samples": 4},
    "mode": "performance",
}


@pytest.fixture(scope="session")
def answers() -> list[list[int]]:
    """What the servers say to the first samples."""
    return [list(answer.ids) for answer in right_answers(CONFIG, SERVERS)]


class FakeRun:
    """A run of four samples in which nothing is wrong; tests change it before they look at it."""

    def __init__(self, folder: Path, answers: list[list[int]]) -> None:
        self.folder = folder
        self.rows = [
            {
                "query_id": 100 + i, "sample_index": i, "server": i % 2, "n_attempts": 1,
                "issued_ns": START_NS, "sent_ns": START_NS + MS, "first_byte_ns": START_NS + 2 * MS,
                "first_token_ns": START_NS + 3 * MS, "done_ns": START_NS + 9 * MS, "n_input_tokens": 5,
                "n_tokens": len(ids), "failure": 0, "restarted": False, "finish_reason": "stop",
                "attempts": None,
            }
            for i, ids in enumerate(answers)
        ]  # fmt: skip
        self.outputs = [
            {"query_id": 100 + i, "sample_index": i, "token_ids": list(ids)} for i, ids in enumerate(answers)
        ]
        self.result: dict[str, Any] = {
            "verdict": "VALID",
            "state": "finished",
            "errors": [],
            "warnings": [],
            "samples": {"issued": 4, "completed": 4, "failed": 0},
            "attempts": {"total": 4, "retried": 0},
            "config": CONFIG,
        }
        self.loadgen: list[tuple[str, object]] = [("result_query_count", 4)]
        self.events: list[tuple[float, str, str, str]] = []
        self.exit_status = 0
        keys = [answer_key(ids) for ids in answers]
        self.journals = [Entries(Counter(keys[i::2]), Counter(keys[i::2])) for i in range(2)]
        self.accuracy: list[dict[str, object]] | None = None
        self.marks: list[Mark] = []

    def fail(self, i: int) -> None:
        """Let a sample fail, and the run say so."""
        self.rows[i] |= {"failure": int(FailureKind.CUT), "n_tokens": 0, "first_token_ns": 0}
        self.outputs = [line for line in self.outputs if line["sample_index"] != i]
        self.result |= {"verdict": "FAILED", "errors": ["1 of 4 samples failed"]}
        self.result["samples"] = {"issued": 4, "completed": 3, "failed": 1}
        self.exit_status = 1

    def evidence(self) -> Evidence:
        """Write it all down, and read it back."""
        (self.folder / "mlperf").mkdir(exist_ok=True)
        recorder = Recorder(self.folder, URLS, START_NS)
        for row in self.rows:
            recorder.add(**row)  # type: ignore[arg-type]
        recorder.close()
        (self.folder / "result.json").write_text(json.dumps(self.result))
        (self.folder / "outputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.outputs))
        log = "".join(f":::MLLOG {json.dumps({'key': k, 'value': v})}\n" for k, v in self.loadgen)
        (self.folder / "mlperf" / "mlperf_log_detail.txt").write_text(log)
        if self.accuracy is not None:
            lines = ",\n".join(json.dumps(entry) for entry in self.accuracy)
            (self.folder / "mlperf" / "mlperf_log_accuracy.json").write_text(f"[\n{lines}\n]\n")
        (self.folder / "events.jsonl").write_text("".join(map(_event, self.events)))
        return Evidence(
            folder=self.folder,
            mode=Mode.SERVER,
            exit_status=self.exit_status,
            urls=URLS,
            servers=SERVERS,
            journals=self.journals,
            marks=self.marks,
        )


def _event(event: tuple[float, str, str, str]) -> str:
    from datetime import UTC, datetime

    at_s, server, old, new = event
    ts = datetime.fromtimestamp(WALL_S + at_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"ts": ts, "event": "state", "server": server, "from": old, "to": new}) + "\n"


@pytest.fixture
def run(tmp_path: Path, answers: list[list[int]]) -> FakeRun:
    """A run in which nothing is wrong."""
    return FakeRun(tmp_path, answers)


@pytest.fixture
def wall() -> Callable[[float], float]:
    """The wall clock's time of a moment of the run."""
    return lambda at_s: WALL_S + at_s
