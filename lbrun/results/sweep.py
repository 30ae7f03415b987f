"""A sweep's comparison: one row a job, the failed and the missing ones among them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from lbrun.results.result import FILE_NAME as RESULT_NAME
from lbrun.results.result import read_result, replace_json, replace_text
from lbrun.results.summary import WIDTH
from lbrun.results.verdict import State
from lbrun.results.wording import clean, count, number, things

JSON_NAME = "sweep.json"
CSV_NAME = "sweep.csv"
SCHEMA_VERSION = 1
NO_RESULT = "NO RESULT"
_OVERRIDES = Path(".hydra") / "overrides.yaml"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One job. folder: below the sweep's. verdict: NO RESULT where the job left none.

    Figures are None where they were not measured. error: the first reason for a verdict that is not VALID.
    """

    folder: str
    overrides: str
    verdict: str
    state: str = ""
    official: bool | None = None
    samples: int | None = None
    failed: int | None = None
    loadgen_metric: str = ""
    loadgen_value: float | None = None
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None
    latency_p99_ms: float | None = None
    duration_s: float | None = None
    error: str = ""


def write_sweep(sweep_dir: Path, overrides: Mapping[str, Iterable[str]] | None = None) -> list[SweepRow]:
    """Write ``sweep.json`` and ``sweep.csv`` anew from every job's ``result.json``; return their rows.

    May be called after each job. overrides: of the planned jobs by folder name, so that a job that has
    not begun is listed too; without it, the jobs are the folders that have a result or a Hydra folder.
    Raises OSError where the folder cannot be written.
    """
    rows = read_sweep(sweep_dir, overrides)
    replace_json(sweep_dir / JSON_NAME, {"schema": SCHEMA_VERSION, "jobs": [asdict(row) for row in rows]})
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(SweepRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    replace_text(sweep_dir / CSV_NAME, text.getvalue())
    return rows


def read_sweep(sweep_dir: Path, overrides: Mapping[str, Iterable[str]] | None = None) -> list[SweepRow]:
    """The rows of a sweep, in the order of its jobs (see `write_sweep`)."""
    planned = {name: list(words) for name, words in (overrides or {}).items()}
    found = {
        path.parent.relative_to(sweep_dir).as_posix()
        for name in (RESULT_NAME, str(_OVERRIDES.parent))
        for path in sweep_dir.rglob(name)
        if path.parent != sweep_dir
    }
    order = [*planned, *sorted(found - planned.keys(), key=_natural)]
    return [_row(sweep_dir, folder, planned.get(folder)) for folder in order]


def finished(job_dir: Path, config_hash: str) -> bool:
    """Whether a job ran to its end with this configuration, so that a sweep started again may skip it."""
    result = read_result(job_dir)
    return (
        result is not None
        and result.get("state") == State.FINISHED
        and bool(config_hash)
        and result.get("config_hash") == config_hash
    )


def render_sweep(
    rows: Iterable[SweepRow], sweep_dir: Path, *, width: int = WIDTH, colour: bool = False
) -> str:
    """The comparison as text. width: columns at most. colour: with ANSI escapes, for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("job", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("overrides", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    streamed = any(row.ttft_p99_ms is not None for row in rows)
    titles = ("TTFT p99", "TPOT p99") if streamed else ("latency p99",)
    for title in ("samples", "failed", "samples/s", "tok/s", *titles):
        table.add_column(title, justify="right", no_wrap=True)
    shared = _shared(rows)
    styles = {"VALID": "green", "INVALID": "yellow", "FAILED": "red"}
    for row in rows:
        times = (row.ttft_p99_ms, row.tpot_p99_ms) if streamed else (row.latency_p99_ms,)
        table.add_row(
            Text(row.folder),
            Text(clean(" ".join(word for word in _overrides(row) if word not in shared))),
            Text(row.verdict, style=styles.get(row.verdict, "")),
            *(Text("-" if n is None else count(n)) for n in (row.samples, row.failed)),
            *(Text(number(value)) for value in (row.requests_per_s, row.output_tokens_per_s, *times)),
        )
    by_verdict: dict[str, int] = {}
    for row in rows:
        by_verdict[row.verdict] = by_verdict.get(row.verdict, 0) + 1
    tally = ", ".join(f"{n} {verdict}" for verdict, n in by_verdict.items())
    console.print(Text(f"{things(len(rows), 'job')}: {tally}" if rows else "no jobs", style="bold"))
    if shared:
        console.print(Text(f"All of them with {clean(' '.join(shared), 1000)}"), soft_wrap=True)
    console.print()
    if rows:
        console.print(table)
    for row in rows:
        if row.error:
            console.print(Text(f"{row.folder}: {clean(row.error)}"), soft_wrap=True)
    console.print(Text(f"Written to {sweep_dir}: {JSON_NAME}, {CSV_NAME}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _overrides(row: SweepRow) -> list[str]:
    """One by one; a value may have blanks."""
    return re.split(r" (?=[~+]*[\w./@-]+=)", row.overrides)


def _shared(rows: Sequence[SweepRow]) -> list[str]:
    """Those that all jobs have, which tell nothing of the jobs' differences."""
    if len(rows) < 2:
        return []
    words = [_overrides(row) for row in rows]
    return [word for word in words[0] if word and all(word in others for others in words[1:])]


def _row(sweep_dir: Path, folder: str, overrides: list[str] | None) -> SweepRow:
    job_dir = sweep_dir / folder
    result = read_result(job_dir)
    if overrides is None:
        overrides = _words((result or {}).get("overrides")) or _hydra_overrides(job_dir)
    words = " ".join(overrides)
    if result is None:
        begun = (job_dir / RESULT_NAME).exists()
        why = f"{RESULT_NAME} cannot be read" if begun else f"no {RESULT_NAME}"
        return SweepRow(folder=folder, overrides=words, verdict=NO_RESULT, error=why)
    samples, metrics, loadgen = (_mapping(result.get(key)) for key in ("samples", "metrics", "loadgen"))
    errors = _words(result.get("errors"))
    return SweepRow(
        folder=folder,
        overrides=words,
        verdict=str(result.get("verdict", NO_RESULT)),
        state=str(result.get("state", "")),
        official=result.get("official"),
        samples=samples.get("issued"),
        failed=samples.get("failed"),
        loadgen_metric=str(loadgen.get("metric", "")),
        loadgen_value=loadgen.get("value"),
        requests_per_s=metrics.get("requests_per_s"),
        output_tokens_per_s=metrics.get("output_tokens_per_s"),
        ttft_p99_ms=_mapping(metrics.get("ttft_ms")).get("p99"),
        tpot_p99_ms=_mapping(metrics.get("tpot_ms")).get("p99"),
        latency_p99_ms=_mapping(metrics.get("latency_ms")).get("p99"),
        duration_s=result.get("duration_s"),
        error=_first(errors),
    )


def _first(errors: Sequence[str]) -> str:
    """The first reason in one line; where it only heads what each server said, with the first of them."""
    first, *others = errors or [""]
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def _hydra_overrides(job_dir: Path) -> list[str]:
    """What Hydra noted of a job that left no result."""
    try:
        return msgspec.yaml.decode((job_dir / _OVERRIDES).read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):
        return []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []


def _natural(folder: str) -> tuple[tuple[int, int | str], ...]:
    """Hydra numbers its jobs: 2 comes before 10."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in folder.split("/"))
