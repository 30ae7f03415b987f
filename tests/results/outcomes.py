"""Runs to look at: records as the dispatcher gives them, and outcomes made from them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lbrun.attempt import FailureKind
from lbrun.results.failures import group_failures
from lbrun.results.metrics import measure
from lbrun.results.records import Recorder, read_requests
from lbrun.results.result import LoadGenOutcome, Outcome, ServerOutcome
from lbrun.results.verdict import SampleCounts, State, judge

MS = 1_000_000
START_NS = 1_000_000 * MS
URLS = ("http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000")


class Row(NamedTuple):
    """What `Recorder.add` takes, in its order."""

    query_id: int
    sample_index: int = 0
    server: int = 0
    n_attempts: int = 1
    issued_ns: int = START_NS
    sent_ns: int = START_NS + MS
    first_byte_ns: int = START_NS + 4 * MS
    first_token_ns: int = START_NS + 5 * MS
    done_ns: int = START_NS + 20 * MS
    n_input_tokens: int = 100
    n_tokens: int = 16
    failure: int = 0
    restarted: bool = False
    finish_reason: str = "stop"
    attempts: list[tuple[int, int, int, int, str]] | None = None


def lost(query_id: int, server: int = 0, message: str = "connection refused") -> Row:
    """A sample whose three attempts failed at one server."""
    kind = int(FailureKind.REFUSED)
    tries = [(server, 0, START_NS + i * MS, kind, f"{message} ({40000 + i})") for i in range(3)]
    return Row(
        query_id,
        server=server,
        n_attempts=3,
        sent_ns=0,
        first_byte_ns=0,
        first_token_ns=0,
        n_tokens=0,
        n_input_tokens=0,
        failure=kind,
        finish_reason="",
        attempts=tries,
    )


def record(run_dir: Path, rows: list[Row]) -> None:
    recorder = Recorder(run_dir, URLS, START_NS)
    for row in rows:
        recorder.add(*row)
    recorder.close()
    assert recorder.error is None


def steady(n: int, *, streamed: bool = True) -> list[Row]:
    """n good samples, one after the other over the servers in turn, 10 ms apart."""
    rows = []
    for i in range(n):
        at = START_NS + i * 10 * MS
        rows.append(
            Row(
                i,
                sample_index=i,
                server=i % len(URLS),
                issued_ns=at,
                sent_ns=at + MS,
                first_byte_ns=at + 4 * MS,
                first_token_ns=at + 5 * MS if streamed else 0,
                done_ns=at + 20 * MS + i * 1000,
            )
        )
    return rows


def outcome_of(
    run_dir: Path,
    *,
    official: bool = True,
    relaxed: tuple[str, ...] = (),
    state: State = State.FINISHED,
    loadgen: LoadGenOutcome | None = None,
    config: dict[str, object] | None = None,
    urls: tuple[str, ...] = URLS,
    errors: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> Outcome:
    """The outcome of the run recorded in a folder."""
    requests = read_requests(run_dir)
    measured = measure(requests, urls)
    samples = SampleCounts(
        issued=requests.num_rows,
        completed=measured.overall.completed,
        failed=measured.overall.failed,
    )
    loadgen = loadgen or LoadGenOutcome("VALID", "Tokens per second", 1234.5, {"Result is": "VALID"})
    return Outcome(
        judgement=judge(
            samples,
            state=state,
            mode="performance",
            loadgen_result=loadgen.result,
            invalid_reasons=loadgen.invalid_reasons,
            loadgen_errors=loadgen.errors,
            errors=errors,
            recorded=requests.num_rows,
        ),
        state=state,
        official=official,
        relaxed=relaxed,
        model="llama3.1-8b",
        scenario="offline",
        mode="performance",
        strategy="round_robin",
        samples=samples,
        attempts=measured.attempts,
        metrics=measured.overall,
        servers=tuple(
            ServerOutcome(url, "ready", traffic=traffic)
            for url, traffic in zip(urls, measured.servers, strict=True)
        ),
        loadgen=loadgen,
        failures=group_failures(requests),
        warnings=warnings,
        environment={"python": "3.11.9", "packages": {"uvloop": "0.21"}},
        config=config or {"servers": {"urls": list(urls)}},
        config_hash="0123456789abcdef",
        overrides=("strategy=round_robin",),
        command="lbrun strategy=round_robin",
        started_at="2026-01-02T03:04:05+00:00",
        duration_s=12.5,
    )
