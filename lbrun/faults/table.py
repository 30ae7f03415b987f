"""The table of a catalogue's run: on a terminal, in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lbrun.faults.scenario import Row, Scenario

_HEAD = (
    "scenario", "requests", "lost", "twice", "false", "retries", "eject s", "back s", "took s", "run",
    "verdict",
)  # fmt: skip
LEGEND = (
    "requests: samples issued by LoadGen; lost: failed; twice: completed more than once; false: recorded as "
    "answered without the right answer; retries: attempts beyond each sample's first; eject, back: from the "
    "fault to the ejection, from the return to the service, the slowest server's; run: lbrun's verdict"
)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{row.scenario} {row.mode}"
    if row.skipped:
        return (name, *[""] * (len(_HEAD) - 2), "skipped")
    return (
        name,
        f"{row.requests}",
        f"{row.lost}",
        f"{row.twice}",
        f"{row.false_successes}",
        f"{row.retries}",
        _seconds(row.eject_s),
        _seconds(row.recover_s),
        _seconds(row.took_s),
        row.verdict,
        "held" if row.held else "broken",
    )


_WIDTHS = (36, 8, 5, 5, 5, 7, 7, 6, 6, 7, 7)


def text_head() -> str:
    """The heading of the terminal's table."""
    return _line(_HEAD) + "\n" + "─" * len(_line(_HEAD))


def text_row(row: Row) -> str:
    """A row of it, with what did not hold below."""
    lines = [_line(_cells(row))]
    lines += [f"    {problem}" for problem in row.problems]
    if row.skipped:
        lines.append(f"    {row.skipped}")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    padded = [cells[0].ljust(_WIDTHS[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], _WIDTHS[1:], strict=True)]
    return " ".join(padded)


def totals(rows: Sequence[Row]) -> str:
    """What it all came to, in one sentence."""
    run = [row for row in rows if not row.skipped]
    held = sum(row.held for row in run)
    text = f"{held} of {len(run)} scenarios held"
    skipped = len(rows) - len(run)
    if skipped:
        text += f", {skipped} skipped"
    wrong = sum(row.false_successes for row in run)
    twice = sum(row.twice for row in run)
    issued = sum(row.requests for row in run)
    return f"{text}; {issued:,} samples, {twice} completed twice, {wrong} falsely successful"


_MARKDOWN_HEAD = (
    "Scenario", "Requests", "Lost", "Completed twice", "Falsely successful", "Retries", "Time to eject, s",
    "Time to recover, s", "Verdict",
)  # fmt: skip


def markdown(rows: Sequence[Row], scenarios: Sequence[Scenario]) -> str:
    """The table for a document, each scenario's first row after what it does."""
    about = {scenario.name: scenario.about for scenario in scenarios}
    lines = ["| " + " | ".join(_MARKDOWN_HEAD) + " |", "|---|" + "---:|" * 7 + "---|"]
    last = ""
    for row in rows:
        name = f"`{row.scenario}`: {about[row.scenario]}; {row.mode}"
        name = name if row.scenario != last else f"{row.mode}"
        last = row.scenario
        if row.skipped:
            cells = [""] * 7 + [f"skipped: {row.skipped}"]
        else:
            problems = "; ".join(problem.splitlines()[0] for problem in row.problems if problem)
            verdict = f"held ({row.verdict})" if row.held else f"**broken** ({problems})"
            counts = (row.requests, row.lost, row.twice, row.false_successes, row.retries)
            cells = [*(f"{n:,}" for n in counts), _seconds(row.eject_s), _seconds(row.recover_s), verdict]
        lines.append("| " + " | ".join((name, *cells)) + " |")
    return "\n".join(lines) + "\n"


def document(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [{**asdict(row), "held": row.held} for row in rows]
