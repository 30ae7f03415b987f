"""What was measured, put into a document between marks: docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lbrun.faults.scenario import Row
from lbrun.faults.soak import Soak
from lbrun.faults.table import totals
from lbrun.results.environment import environment

TABLE, SOAK = "catalogue", "soak"
"""Names of marks: ``<!-- NAME -->`` and ``<!-- /NAME -->`` on lines of their own."""


def check_marks(path: Path, name: str) -> None:
    """Raises ValueError where a document cannot be read, or has no marks of that name."""
    try:
        _around(path, name)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def insert(path: Path, name: str, text: str) -> None:
    """Put a text between a document's marks of that name."""
    head, tail = _around(path, name)
    path.write_text(f"{head}{text}{tail}", encoding="utf-8")


def _around(path: Path, name: str) -> tuple[str, str]:
    """What comes before the figures and after them, marks included."""
    document = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, found, rest = document.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{path} has no lines {begin.strip()} and {end} to put the figures between")
    return head + begin, end + tail


def measured(rows: Sequence[Row], jobs: int, took_s: float) -> str:
    """When and where, and what it came to."""
    beside = f", {jobs} scenarios at once" if jobs > 1 else ""
    return f"{_where()}{beside}, {took_s / 60:.0f} minutes. {totals(rows)}.\n\n"


def soak_figures(result: Soak) -> str:
    """A soak's counts, and memory and descriptors by quarters."""
    row = result.row
    verdict = f"held ({row.verdict})" if row.held else f"broken: {'; '.join(row.problems)}"
    counts = (
        f"{row.took_s / 60:.0f} minutes, {result.faults} faults, {row.requests:,} requests, {row.lost} lost, "
        f"{row.twice} completed twice, {row.false_successes} falsely successful, {row.retries:,} retries: "
    )
    quarters = "".join(
        f"| {n} | {rss_mib:.1f} | {descriptors:.0f} |\n"
        for n, (rss_mib, descriptors) in enumerate(result.medians(), 1)
    )
    return (
        f"{_where()}. {counts}{verdict}.\n\n"
        f"| Quarter | Memory of the test's process, MiB (median) | Descriptors (median) |\n|---|---:|---:|\n"
        f"{quarters}"
    )


def _where() -> str:
    machine = environment()
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"Measured {date}: {machine['cpus_usable']} cores, Python {machine['python']}"
