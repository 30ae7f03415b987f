"""What a run has left behind, read as anybody could read it: result, records, events, LoadGen's log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lbrun.embedded.answers import Answer
from lbrun.embedded.journal import Entries
from lbrun.embedded.settings import EmbeddedSettings
from lbrun.faults.right_answers import right_answers
from lbrun.faults.scenario import Mode
from lbrun.results.events import read_events
from lbrun.results.outputs import FILE_NAME as OUTPUTS
from lbrun.results.records import read_requests
from lbrun.results.result import read_result

OUT = ("ejected", "excluded", "starting")


@dataclass(slots=True)
class Mark:
    """When a server was broken, and when it could serve again; wall clock, seconds. None: it stays broken."""

    server: int
    broke_s: float
    mended_s: float | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything that is known of an ended run.

    folder: the run's. exit_status: of lbrun. urls: of the pool. journals: what each server wrote down itself;
    empty where lbrun started the pool. servers: what they were told to be. last_fault_s, ended_s: wall clock.
    told: lbrun's standard error.
    """

    folder: Path
    mode: Mode
    exit_status: int
    urls: Sequence[str]
    servers: EmbeddedSettings
    journals: Sequence[Entries] = ()
    marks: Sequence[Mark] = ()
    last_fault_s: float | None = None
    ended_s: float = 0.0
    told: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def result(self) -> dict[str, Any]:
        """``result.json``; empty where it cannot be read."""
        return read_result(self.folder) or {}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The per-sample records."""
        rows: list[dict[str, Any]] = read_requests(self.folder).to_pylist()
        return rows

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened to the servers, each with ``at_s`` on the wall clock."""
        return [
            {**event, "at_s": datetime.fromisoformat(event["ts"]).timestamp()}
            for event in read_events(self.folder)
        ]

    @cached_property
    def loadgen(self) -> Mapping[str, list[Any]]:
        """The values of LoadGen's detail log by their keys, also of one that was set aside.

        A line that was cut, by a kill or a full disk, is left out.
        """
        values: dict[str, list[Any]] = {}
        for path in (self.folder / "mlperf").glob("mlperf_log_detail*.txt"):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith(":::MLLOG "):
                    with contextlib.suppress(json.JSONDecodeError):
                        entry = json.loads(line.removeprefix(":::MLLOG "))
                        values.setdefault(entry["key"], []).append(entry["value"])
        return values

    @cached_property
    def outputs(self) -> list[dict[str, Any]]:
        """The recorded answers; a last line that was cut is left out."""
        try:
            lines = (self.folder / OUTPUTS).read_bytes().split(b"\n")
        except OSError:
            return []
        found = []
        for line in lines[:-1]:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @cached_property
    def accuracy_log(self) -> list[dict[str, Any]] | None:
        """The entries of LoadGen's accuracy log, also of one that was set aside; None where there is none.

        A line that was cut is left out.
        """
        paths = list((self.folder / "mlperf").glob("mlperf_log_accuracy*.json"))
        if not paths or self.result["config"]["mode"] != "accuracy":
            return None
        entries = []
        for line in paths[0].read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line.strip().removesuffix(","))
                if isinstance(entry, dict):
                    entries.append(entry)
        return entries

    @cached_property
    def right_answers(self) -> Sequence[Answer]:
        """What the servers say to each sample."""
        return right_answers(self.result["config"], self.servers)

    # ---- figures

    @property
    def issued(self) -> int:
        """Samples that lbrun says LoadGen has issued; of a run that was cut, those in its records."""
        issued = self.result.get("samples", {}).get("issued")
        return len(self.rows) if issued is None else int(issued)

    @property
    def lost(self) -> int:
        """Samples that failed."""
        failed = self.result.get("samples", {}).get("failed")
        return sum(row["failure"] is not None for row in self.rows) if failed is None else int(failed)

    @property
    def retries(self) -> int:
        """Attempts beyond each sample's first."""
        retried = self.result.get("attempts", {}).get("retried")
        return sum(max(0, row["n_attempts"] - 1) for row in self.rows) if retried is None else int(retried)

    @property
    def attempts_per_sample(self) -> float:
        """HTTP requests made for a sample, on average."""
        total = self.result.get("attempts", {}).get("total")
        if total is None:
            total = sum(row["n_attempts"] for row in self.rows)
        return float(total / max(1, self.issued))

    @property
    def in_flight_peak(self) -> int:
        """How many requests were out at once, by the records."""
        steps = [(row["sent_ns"], 1) for row in self.rows if row["sent_ns"] and row["failure"] is None]
        steps += [(row["done_ns"], -1) for row in self.rows if row["sent_ns"] and row["failure"] is None]
        now = peak = 0
        for _, step in sorted(steps):
            now += step
            peak = max(peak, now)
        return peak

    def eject_s(self) -> float | None:
        """From each fault to the ejection that followed, the longest; None where none was."""
        took = [at_s - mark.broke_s for mark in self.marks if (at_s := self._out_at_s(mark)) is not None]
        return max(took, default=None)

    def recover_s(self) -> float | None:
        """From each return to the service that followed, the longest; None where none was."""
        took = [
            at_s - mark.mended_s
            for mark in self.marks
            if mark.mended_s is not None
            and (at_s := self._first_at_s(mark.server, mark.mended_s, ("ready",))) is not None
        ]
        return max(took, default=None)

    def never_ejected(self) -> list[int]:
        """Servers that were broken and never taken out."""
        return [mark.server for mark in self.marks if self._out_at_s(mark) is None]

    def never_back(self) -> list[int]:
        """Servers that were mended and are not in service at the end."""
        last = {event["server"]: event["to"] for event in self.events if "to" in event}
        mended = {mark.server for mark in self.marks if mark.mended_s is not None}
        return [server for server in sorted(mended) if last.get(self.urls[server]) != "ready"]

    def ejections(self) -> list[str]:
        """Every time that a server in service was taken out, in words."""
        return [
            f"{event['server']} {event['to']}: {event.get('reason', '')}"
            for event in self.events
            if event.get("from") in ("ready", "suspect", "trial") and event.get("to") in OUT
        ]

    def _out_at_s(self, mark: Mark) -> float | None:
        return self._first_at_s(mark.server, mark.broke_s, OUT)

    def _first_at_s(self, server: int, after_s: float, states: Sequence[str]) -> float | None:
        for event in self.events:
            # the log's wall clock has whole milliseconds
            if (
                event.get("server") == self.urls[server]
                and event.get("to") in states
                and event["at_s"] >= after_s - 0.001
            ):
                return max(after_s, float(event["at_s"]))
        return None
