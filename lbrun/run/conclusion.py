"""What a run came to: the child's report, the records and LoadGen's logs, weighed into one outcome."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbrun.config import RunSettings
from lbrun.config.official import relaxed_rules
from lbrun.config.secrets import make_redactor
from lbrun.errors import ConfigError, DatasetError, Interrupted, LbrunError, RunFailed
from lbrun.loadgen.accuracy_log import check_accuracy_log, secrets_in_answers
from lbrun.loadgen.logs import ACCURACY, LoadGenResult, read_logs, set_aside
from lbrun.results.failures import group_failures
from lbrun.results.metrics import AttemptCounts, RunMetrics, Traffic, first_send_ms, measure
from lbrun.results.records import read_requests, recover
from lbrun.results.result import LoadGenOutcome, Outcome, ServerOutcome, has_records
from lbrun.results.verdict import SampleCounts, State, Verdict, judge
from lbrun.results.wording import things
from lbrun.run.delays import alerts
from lbrun.run.ledger import LedgerCounts
from lbrun.run.model_doubts import ModelDoubts, model_doubts
from lbrun.run.supervisor import ChildEnd

_METRICS = (
    "Tokens per second",
    "Completed tokens per second",
    "Samples per second",
    "Completed samples per second",
)
"""LoadGen's result lines, the one that a benchmark is compared by first."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """outcome: for result.json, summary and report. has_records: there is anything to plot."""

    outcome: Outcome
    has_records: bool


def conclude(
    settings: RunSettings,
    run_dir: Path,
    urls: list[str],
    end: ChildEnd,
    static: dict[str, Any],
    duration_s: float,
) -> Conclusion:
    """Weigh a run. Raises LbrunError for an end that is no run at all: the user's mistake, no server, Ctrl-C
    before the test.
    """
    if end.outcome is None and end.error and not end.is_bug:
        raise _as_error(end)
    if end.outcome is None and end.interrupts and not has_records(run_dir):
        raise Interrupted("interrupted before the test began")
    report = end.outcome or {}
    errors = list(report.get("problems", ()))
    if end.outcome is None:
        broken = [end.broken] if end.broken else []
        errors += [*broken, *end.error, end.describe_death() + f"; see {run_dir / 'lbrun.log'}"]
        recover(run_dir)
    records = read_requests(run_dir)
    measured = measure(records, urls)
    samples = _samples(report, records, end.counts)
    if end.outcome is None:
        errors += _lost_records(records, end.counts)
    doubts = model_doubts(report.get("models", {}), records)
    logs = read_logs(run_dir / "mlperf")
    state = State.FINISHED
    if report.get("interrupted") or end.interrupts:
        state = State.INTERRUPTED
    elif end.outcome is None or errors or not report.get("loadgen_ended", True):
        state = State.BROKEN
    if state is State.FINISHED and not samples.failed:
        errors += _check_logs(settings, run_dir / "mlperf", logs, samples)
    judgement = judge(
        samples,
        state=state,
        mode=settings.mode,
        loadgen_result=_word(logs),
        invalid_reasons=logs.reasons,
        loadgen_errors=() if samples.failed else logs.errors,
        errors=[*errors, *doubts.errors, *report.get("given_up", ())],
        recorded=records.num_rows,
    )
    if judgement.verdict is Verdict.FAILED:
        set_aside(run_dir / "mlperf")
    relaxed = relaxed_rules(
        settings,
        report.get("user_conf"),
        n_samples=report.get("dataset_samples"),
        left_out=report.get("left_out", ()),
    )
    client = dict(report.get("client", {}))
    # Offline, and at a server that is full, samples wait for room: that is the configuration's doing
    if client and settings.scenario.loadgen == "Server" and settings.max_in_flight is None:
        spread = first_send_ms(records)
        if spread is not None:
            client["issue_to_wire_ms"] = {"p50": spread.p50, "p99": spread.p99, "max": spread.max}
    outcome = Outcome(
        judgement=judgement,
        state=state,
        official=not relaxed,
        relaxed=relaxed,
        model=static["model"],
        scenario=static["scenario"],
        mode=static["mode"],
        strategy=static["strategy"],
        samples=samples,
        attempts=_attempts(report, end.counts) or measured.attempts,
        metrics=measured.overall if records.num_rows else None,
        servers=_servers(report.get("servers", end.servers), urls, measured, doubts),
        loadgen=_loadgen(logs),
        failures=group_failures(records),
        warnings=(*report.get("warnings", end.warnings), *doubts.warnings),
        client=client,
        alerts=(
            *doubts.alerts,
            *_held_up(end.held_up_s),
            *alerts(
                client,
                report.get("limits_ms", {}),
                measured.overall,
                latencies_count=settings.scenario.loadgen == "Server",
                cpus=static["environment"].get("cpus_usable"),
            ),
            *secrets_in_answers(run_dir / "mlperf", make_redactor(settings.servers, os.environ)),
        ),
        environment=static["environment"],
        config=static["config"],
        config_hash=static["config_hash"],
        overrides=tuple(static["overrides"]),
        command=static["command"],
        started_at=static["started_at"],
        duration_s=duration_s,
    )
    return Conclusion(outcome, has_records=records.num_rows > 0)


def _check_logs(settings: RunSettings, folder: Path, logs: LoadGenResult, samples: SampleCounts) -> list[str]:
    """What LoadGen's logs lack of a run in which everything was answered."""
    problems = [f"{name} is cut short; is the disk full?" for name in logs.cut]
    is_audit = settings.scenario.audit_conf is not None
    if settings.mode == "accuracy" or is_audit:
        token_ids = settings.model.payload == "token_ids"
        problems += check_accuracy_log(
            folder / ACCURACY,
            token_ids=token_ids,
            samples=samples.issued if settings.mode == "accuracy" else None,
            counted=settings.model.tokenizer is None,
            first_tokens=is_audit and token_ids and settings.scenario.loadgen == "Server",
        )
    return problems


def _as_error(end: ChildEnd) -> LbrunError:
    """The error that the child reported, as the exception that it was there."""
    text = "\n".join(end.error)
    if end.error_status == DatasetError.exit_status:
        return ConfigError(end.error)
    if end.error_status == Interrupted.exit_status:
        return Interrupted(text)
    return RunFailed(text)


def _samples(report: dict[str, Any], records: Any, counts: LedgerCounts) -> SampleCounts:
    """The dispatcher's own counts. Of a test that died, answers are what its records hold; all other samples
    that LoadGen had issued have failed.
    """
    if "samples" in report:
        return SampleCounts(**report["samples"])
    completed = records.column("failure").null_count
    issued = max(counts.issued, records.num_rows)
    return SampleCounts(issued, completed, issued - completed)


def _held_up(seconds: float) -> list[str]:
    if not seconds:
        return []
    return [f"lbrun was stopped as a whole for {seconds:.0f} s; LoadGen's times contain it"]


def _lost_records(records: Any, counts: LedgerCounts) -> list[str]:
    """Samples that a dead test had answered and not recorded: they count as failed, and are told."""
    recorded = records.column("failure").null_count
    if counts.completed <= recorded:
        return []
    lost = counts.completed - recorded
    return [f"{things(lost, 'sample')} had been answered when it died, and their records are lost with it"]


def _attempts(report: dict[str, Any], counts: LedgerCounts) -> AttemptCounts | None:
    """The dispatcher's own counts, also of a test that died; None where it never came to count."""
    counted = report.get("attempts")
    if counted is not None:
        return AttemptCounts(counted["total"], counted["retried"], counted["restarted_streams"])
    if counts.attempts:
        return AttemptCounts(counts.attempts, counts.retried, counts.restarted_streams)
    return None


def _servers(
    told: Sequence[dict[str, Any]], urls: list[str], measured: RunMetrics, doubts: ModelDoubts
) -> tuple[ServerOutcome, ...]:
    """told: the pool's own rows, the last ones where the test died. What was never told is unknown."""
    rows = {row["url"]: row for row in told}
    out = []
    for url, traffic in zip(urls, measured.servers, strict=True):
        row = rows.get(url, {})
        shown: Traffic | None = traffic if traffic.requests else None
        out.append(
            ServerOutcome(
                url=url,
                state=row.get("state", "unknown"),
                ejections=row.get("ejections"),
                recoveries=row.get("recoveries"),
                last_error=row.get("last_error", ""),
                traffic=shown,
                model=doubts.told.get(url, {}),
                model_change=doubts.changed.get(url, ""),
            )
        )
    return tuple(out)


def _word(logs: LoadGenResult) -> str | None:
    return None if logs.valid is None else ("VALID" if logs.valid else "INVALID")


def _loadgen(logs: LoadGenResult) -> LoadGenOutcome | None:
    if not logs.fields:
        return None
    metric = next((name for name in _METRICS if name in logs.fields), "")
    try:
        value = float(logs.fields[metric]) if metric else None
    except ValueError:
        value = None
    return LoadGenOutcome(
        result=_word(logs),
        metric=metric,
        value=value,
        summary=logs.fields,
        invalid_reasons=logs.reasons,
        errors=logs.errors,
    )
