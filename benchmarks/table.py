"""Figures on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import BenchmarkError, Report

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def show(console: Console, report: Report, against: Mapping[str, float] | None) -> None:
    """Print the table. against: ratios to an earlier result, by key."""
    table = Table("figure", title="; ".join((report.date, _machine(report))), title_justify="left")
    for column in ("measured", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    if against is not None:
        table.add_column("to earlier", justify="right")
    for figure in report.figures:
        target = "" if figure.target is None else f"{_number(figure.target)}"
        verdict = {None: "", True: "met", False: "[bold red]missed[/]"}[figure.met]
        row = [figure.title, f"{_number(figure.value)} {figure.unit}", target, verdict]
        if against is not None:
            row.append(f"x {against[figure.key]:.2f}" if figure.key in against else "")
        table.add_row(*row)
    console.print(table)
    for name, why in report.failures.items():
        console.print(f"[bold red]not measured: {name}[/]: {why}", highlight=False)


def insert(path: Path, report: Report) -> None:
    """Put the figures into a Markdown file, between its two marks.

    Raises BenchmarkError where it has none.
    """
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{path} has no {BEGIN} ... {END} to put the figures between")
    path.write_text(f"{head}{BEGIN}\n{markdown(report)}\n{END}{tail}", encoding="utf-8")


def markdown(report: Report) -> str:
    """The same as a Markdown table, with notes: what docs/performance.md shows."""
    commit = f", at {report.machine['commit']}" if report.machine.get("commit") else ""
    lines = [
        f"Measured {report.date[:10]}{commit}: {_machine(report)}, {report.machine['memory_gib']} GiB, Linux "
        f"{report.machine['kernel']}; load average {report.machine['load_average']:.1f} at the start; "
        f"median of {report.settings['repeats']}{_remark(report)}.",
        "",
        "| Figure | Measured | Target | | How |",
        "|---|---|---|---|---|",
    ]
    for figure in report.figures:
        target = "" if figure.target is None else _number(figure.target)
        verdict = {None: "", True: "met", False: "**missed**"}[figure.met]
        spread = ""
        if len(figure.samples) > 1:
            spread = f" ({_number(min(figure.samples))} to {_number(max(figure.samples))})"
        value = f"{_number(figure.value)} {figure.unit}{spread}"
        lines.append(f"| {figure.title} | {value} | {target} | {verdict} | {figure.note} |")
    lines += [f"\nNot measured: {name}." for name in report.failures]
    return "\n".join(lines)


def _remark(report: Report) -> str:
    remark = report.settings.get("remark")
    return f"; {remark}" if remark else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine(report: Report) -> str:
    machine = report.machine
    return f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"
