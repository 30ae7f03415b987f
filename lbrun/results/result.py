"""``result.json``: what a run is worth and everything needed to believe or repeat it.

It exists from the run's first moment, and then says FAILED: whoever finds it after a crash or a
``kill -9`` reads the truth. Each version of it replaces the one before in one step.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbrun.results.verdict import Judgement, SampleCounts, State, Verdict

if TYPE_CHECKING:
    from lbrun.results.failures import FailureGroup
    from lbrun.results.metrics import AttemptCounts, Traffic

FILE_NAME = "result.json"
SCHEMA_VERSION = 1
CUT = "the run was cut: no process finished it"


@dataclass(frozen=True, slots=True)
class ServerOutcome:
    """One server of the pool.

    state: at the end. ejections, recoveries: how often it was taken out of service and back; None: unknown.
    last_error: the last thing it did wrong, "" for nothing. traffic: None where nothing was measured.
    model: what it told of its model at the start. model_change: what it told otherwise later, "" for nothing.
    """

    url: str
    state: str
    ejections: int | None = 0
    recoveries: int | None = 0

    @property
    def out_and_back(self) -> str:
        """Ejections and recoveries in short, "?" where they are unknown."""
        return "/".join("?" if n is None else str(n) for n in (self.ejections, self.recoveries))

    last_error: str = ""
    traffic: Traffic | None = None
    model: Mapping[str, object] = field(default_factory=dict)
    model_change: str = ""


@dataclass(frozen=True, slots=True)
class LoadGenOutcome:
    """What LoadGen itself found.

    result: ``VALID``, ``INVALID``, or None where its summary has none (accuracy runs, broken runs).
    metric, value: its result line, e.g. ``Tokens per second`` and 1234.5.
    summary: the fields of its summary. invalid_reasons: rules not met. errors: ERROR lines of its log.
    """

    result: str | None
    metric: str = ""
    value: float | None = None
    summary: Mapping[str, object] = field(default_factory=dict)
    invalid_reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything known of a run at its end.

    judgement: by `lbrun.results.verdict.judge`. official: MLPerf's own rules were in force.
    relaxed: else, each rule that was not, in words. model, scenario, mode, strategy: as configured.
    metrics: of the whole pool, None where no record exists. failures: failed attempts, grouped.
    warnings: what a reader should know and what did not break the run. alerts: warnings that belong into the
    first lines. client: what the client itself cost and how late it was.
    config: resolved, without secrets. config_hash: by `config_hash`. overrides, command: to run it again.
    started_at: wall clock, ISO 8601. duration_s: of the whole run, start of the servers included.
    """

    judgement: Judgement
    state: State
    official: bool
    model: str
    scenario: str
    mode: str
    strategy: str
    samples: SampleCounts
    attempts: AttemptCounts
    relaxed: tuple[str, ...] = ()
    metrics: Traffic | None = None
    servers: tuple[ServerOutcome, ...] = ()
    loadgen: LoadGenOutcome | None = None
    failures: tuple[FailureGroup, ...] = ()
    warnings: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    client: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    config_hash: str = ""
    overrides: tuple[str, ...] = ()
    command: str = ""
    started_at: str = ""
    duration_s: float = 0.0

    def redacted(self, redact: Callable[[str], str]) -> Outcome:
        """The same with `redact` applied to all words that may be a server's; the configuration has none."""

        def each(texts: Iterable[str]) -> tuple[str, ...]:
            return tuple(map(redact, texts))

        loadgen = self.loadgen
        if loadgen is not None:
            loadgen = replace(
                loadgen, invalid_reasons=each(loadgen.invalid_reasons), errors=each(loadgen.errors)
            )
        return replace(
            self,
            judgement=replace(self.judgement, reasons=each(self.judgement.reasons)),
            servers=tuple(replace(server, last_error=redact(server.last_error)) for server in self.servers),
            loadgen=loadgen,
            failures=tuple(replace(group, message=redact(group.message)) for group in self.failures),
            warnings=each(self.warnings),
            alerts=each(self.alerts),
        )

    def document(self) -> dict[str, Any]:
        """The outcome as ``result.json`` has it."""
        return {
            "schema": SCHEMA_VERSION,
            "verdict": str(self.judgement.verdict),
            "state": str(self.state),
            "exit_status": self.judgement.exit_status,
            "official": self.official,
            "relaxed": list(self.relaxed),
            "model": self.model,
            "scenario": self.scenario,
            "mode": self.mode,
            "strategy": self.strategy,
            "samples": asdict(self.samples),
            "attempts": asdict(self.attempts),
            "metrics": asdict(self.metrics) if self.metrics else None,
            "servers": [_server_document(server) for server in self.servers],
            "loadgen": asdict(self.loadgen) if self.loadgen else None,
            "errors": list(self.judgement.reasons),
            "failures": [asdict(group) for group in self.failures],
            "warnings": [*self.alerts, *self.warnings],
            "client": dict(self.client),
            "started_at": self.started_at,
            "duration_s": self.duration_s,
            "command": self.command,
            "overrides": list(self.overrides),
            "environment": dict(self.environment),
            "config_hash": self.config_hash,
            "config": dict(self.config),
        }


class ResultFile:
    """Writes a run's ``result.json``. Raises OSError where the folder cannot be written."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE_NAME

    def begin(self, static: Mapping[str, object]) -> None:
        """State that a run was begun, by what is known before it: any keys of the final document."""
        unknown: dict[str, object] = {
            "official": None,
            "samples": dict.fromkeys(("issued", "completed", "failed")),
            "attempts": dict.fromkeys(("total", "retried", "restarted_streams")),
            "metrics": None,
            "servers": [],
        }
        head = {
            "schema": SCHEMA_VERSION,
            "verdict": str(Verdict.FAILED),
            "state": str(State.RUNNING),
            "errors": [CUT],
        }
        replace_json(self.path, {**head, **unknown, **static, **head})

    def finish(self, outcome: Outcome) -> None:
        """Replace it by the final document."""
        replace_json(self.path, outcome.document())


def config_hash(config: Mapping[str, object]) -> str:
    """A fingerprint of a resolved configuration; the order of keys does not matter."""
    text = json.dumps(config, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def has_records(run_dir: Path) -> bool:
    """Whether a run came to its test, so that LoadGen may have issued samples."""
    return any((run_dir / name).exists() for name in ("requests.arrows", "requests.parquet"))


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """A run's ``result.json``; None where there is none that can be read."""
    try:
        document = json.loads((run_dir / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def replace_json(path: Path, document: object) -> None:
    """Write a JSON file so that a reader, or a crash, meets either the old or the new one."""
    text = json.dumps(_finite(document), indent=2, default=str, allow_nan=False) + "\n"
    replace_text(path, text)


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, in one step (see `replace_json`)."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())  # or a power cut leaves a complete name over an empty file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _finite(value: object) -> object:
    """The same with NaN and infinities as null: JSON has no words for them."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _server_document(server: ServerOutcome) -> dict[str, Any]:
    """Counts at the top, where scripts look for them; the rest of the traffic below `metrics`."""
    traffic = asdict(server.traffic) if server.traffic else {}
    return {
        "url": server.url,
        "state": server.state,
        "requests": traffic.pop("requests", 0),
        "completed": traffic.pop("completed", 0),
        "failed": traffic.pop("failed", 0),
        "ejections": server.ejections,
        "recoveries": server.recoveries,
        "last_error": server.last_error,
        "model": dict(server.model) or None,
        "model_change": server.model_change,
        "metrics": traffic or None,
    }
