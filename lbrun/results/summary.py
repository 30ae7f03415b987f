"""The summary of a run: what the terminal shows at the end, and ``summary.txt``.

Its first line is the verdict. Below 100 columns wide.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbrun.results.result import Outcome, ServerOutcome
from lbrun.results.verdict import State, Verdict
from lbrun.results.wording import ABSENT, clean, count, duration, number, percent, short_url, things

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from lbrun.results.metrics import Distribution, Traffic

FILE_NAME = "summary.txt"
WIDTH = 98
_MAX_SERVERS = 40
_MAX_FAILURES = 8
_MIN_NAME = 10

_FILES = {
    "result.json": "verdict, metrics, configuration",
    "requests.parquet": "a row a sample",
    "events.jsonl": "what happened to the servers",
    "report.html": "tables and plots",
    "mlperf": "LoadGen's own files",
    "lbrun.log": "the log",
}


def headline(outcome: Outcome) -> str:
    """The verdict in one line: what, why, under which rules, of which run.

    ``VALID, official · llama3.1-8b Offline performance, random over 3 servers: 13,368 samples, 0 failed``
    """
    rules = "official" if outcome.official else "trial"
    if outcome.relaxed:
        rules += f" ({'; '.join(clean(rule) for rule in outcome.relaxed)})"
    parts = [f"{outcome.judgement.verdict}, {rules}"]
    if outcome.judgement.reasons:
        reasons = outcome.judgement.reasons
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        parts.append(clean(reasons[0]) + more)
    what = f"{outcome.model} {outcome.scenario.capitalize()} {outcome.mode}"
    pool = f"{outcome.strategy} over {things(len(outcome.servers), 'server')}"
    samples = f"{things(outcome.samples.issued, 'sample')}, {count(outcome.samples.failed)} failed"
    parts.append(f"{what}, {pool}: {samples}")
    return " · ".join(parts)


def render_summary(outcome: Outcome, run_dir: Path, *, width: int = WIDTH, colour: bool = False) -> str:
    """The whole summary as text. width: columns at most. colour: with ANSI escapes, for a terminal."""
    from rich.console import Console
    from rich.text import Text

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
    style = {Verdict.VALID: "bold green", Verdict.INVALID: "bold yellow", Verdict.FAILED: "bold red"}
    # The first line is for people and for `head -1`, so it stays one line however long it gets.
    console.print(Text(headline(outcome), style=style[outcome.judgement.verdict]), soft_wrap=True)
    for alert in outcome.alerts:
        console.print(Text(f"Warning: {clean(alert, 400)}", style="bold yellow"), soft_wrap=True)
    console.print()
    for line in _key_lines(outcome):
        console.print(Text(line), soft_wrap=True)
    console.print()
    if outcome.servers:
        console.print(_server_table(outcome, width))
    for title, lines in (
        ("Why", outcome.judgement.reasons if len(outcome.judgement.reasons) > 1 else ()),
        ("Failed attempts", _failure_lines(outcome)),
        ("Rules relaxed for this trial", outcome.relaxed),
        ("Note", outcome.warnings),
    ):
        if lines:
            console.print(Text(title, style="bold"))
            for line in lines:
                console.print(Text(f"  {clean(line, 600)}"), soft_wrap=True)
            console.print()
    console.print(Text(f"Written to {run_dir}", style="bold"), soft_wrap=True)
    for name, what_for in _FILES.items():
        if (run_dir / name).exists():
            console.print(Text(f"  {name:<18}{what_for}"))
    if outcome.command:
        console.print(Text(f"Run it again: {outcome.command}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _key_lines(outcome: Outcome) -> list[str]:
    """LoadGen's own result, then ours."""
    lines = []
    loadgen = outcome.loadgen
    if outcome.judgement.verdict is Verdict.FAILED and loadgen is not None:
        why = "it takes failed samples for answers" if outcome.samples.failed else "the run is FAILED"
        lines.append(f"LoadGen       its result is set aside: {why}")
    elif loadgen is not None:
        if loadgen.metric and loadgen.value is not None:
            result = f", {loadgen.result}" if loadgen.result else ""
            lines.append(f"LoadGen       {loadgen.metric}: {loadgen.value:,.2f}{result}")
        elif loadgen.result:
            lines.append(f"LoadGen       {loadgen.result}")
        lines.extend(f"              {clean(reason)}" for reason in loadgen.invalid_reasons)
    samples, attempts = outcome.samples, outcome.attempts
    lines.append(
        f"Samples       {count(samples.issued)} issued, {count(samples.completed)} completed, "
        f"{count(samples.failed)} failed"
    )
    lines.append(
        f"Attempts      {count(attempts.total)}, {count(attempts.retried)} of them retries, "
        f"{things(attempts.restarted_streams, 'stream')} begun again"
    )
    lines += _client_lines(outcome.client)
    traffic = outcome.metrics
    if traffic is None or not traffic.completed:
        return lines
    lines.append(
        f"Throughput    {number(traffic.requests_per_s)} samples/s, "
        f"{number(traffic.output_tokens_per_s)} output tokens/s, "
        f"{number(traffic.input_tokens_per_s)} input tokens/s, over {duration(traffic.duration_s)}"
    )
    lines.append("")
    lines.append(f"{'ms':<12}" + "".join(f"{name:>10}" for name in _COLUMNS))
    lines.extend(
        f"{name:<12}" + "".join(f"{number(getattr(spread, field)):>10}" for field in _COLUMNS.values())
        for name, spread in spreads(traffic)
    )
    return lines


def _client_lines(client: Mapping[str, Any]) -> list[str]:
    """What the client itself added, so that nobody takes it for the servers."""
    if not client:
        return []
    lags = [loop["lag_ms"] for loop in client.get("loops", ()) if loop["lag_ms"]]
    named = (
        ("issue to wire", client.get("issue_to_wire_ms")),
        ("last byte to LoadGen", client.get("last_byte_to_loadgen_ms")),
        ("event loop late", max(lags, key=lambda lag: float(lag["p99"]), default=None)),
    )
    delays = [f"{name} {number(spread['p99'])}" for name, spread in named if spread]
    text = f"Client        {client.get('cores_used', 0.0):.2f} cores"
    return [text + (f"; p99 in ms: {', '.join(delays)}" if delays else "")]


_COLUMNS = {"mean": "mean", "p50": "p50", "p90": "p90", "p99": "p99", "p99.9": "p99_9", "max": "max"}


def spreads(traffic: Traffic) -> list[tuple[str, Distribution]]:
    """The distributions that were measured, by the names people know them by."""
    named = (
        ("TTFT", traffic.ttft_ms),
        ("TPOT", traffic.tpot_ms),
        ("latency", traffic.latency_ms),
        ("queueing", traffic.queue_ms),
    )
    return [(name, spread) for name, spread in named if spread is not None]


def middle_and_tail(spread: Distribution | None) -> str:
    """Median and p99 in one cell."""
    return f"{number(spread.p50)}/{number(spread.p99)}" if spread else ABSENT


def _server_table(outcome: Outcome, page: int) -> object:
    """One row a server. What is too wide for the page is taken from the servers' names, not from figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    streamed = outcome.metrics is not None and outcome.metrics.ttft_ms is not None
    times = ("TTFT p50/p99", "TPOT p50/p99") if streamed else ("latency p50/p99",)
    titles = ("server", "requests", "share", "failed", "tokens", *times, "out/back", "state")
    rows = [_server_cells(server, streamed) for server in outcome.servers[:_MAX_SERVERS]]
    if sum(_widths(titles, rows)) + len(titles) - 1 > page:
        titles = tuple(re.sub(r" |(?<=/)(?=b)", "\n", title) for title in titles)
    widths = _widths(titles, rows)
    room = page - sum(widths[1:]) - (len(titles) - 1)
    roomy = room - (len(titles) - 1) >= widths[0]  # a second blank between all columns
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(roomy), 0, 0), pad_edge=False, show_edge=False)
    widths[0] = min(widths[0], max(_MIN_NAME, room))
    for title, width in zip(titles, widths, strict=True):
        justify: JustifyMethod = "left" if title in ("server", "state") else "right"
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for cells in rows:
        table.add_row(*map(Text, cells))
    caption = "failed: HTTP requests that failed there; out/back: ejections, recoveries; times in ms"
    if len(outcome.servers) > _MAX_SERVERS:
        caption += f"\n{len(outcome.servers) - _MAX_SERVERS} more servers: see result.json"
    table.caption, table.caption_justify = caption + "\n", "left"
    return table


def _widths(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Of the columns; a title may have several lines."""
    cells = zip(*rows, strict=True) if rows else [()] * len(titles)
    return [
        max(map(len, (*title.splitlines(), *column))) for title, column in zip(titles, cells, strict=True)
    ]


def _server_cells(server: ServerOutcome, streamed: bool) -> list[str]:
    traffic = server.traffic
    if traffic is None:
        measured = [ABSENT] * (6 if streamed else 5)
    else:
        times = (traffic.ttft_ms, traffic.tpot_ms) if streamed else (traffic.latency_ms,)
        measured = [
            count(traffic.requests),
            percent(traffic.share),
            count(traffic.failed),
            count(traffic.output_tokens),
            *map(middle_and_tail, times),
        ]
    return [short_url(server.url), *measured, server.out_and_back, server.state]


def _failure_lines(outcome: Outcome) -> list[str]:
    lines = [str(group) for group in outcome.failures[:_MAX_FAILURES]]
    if len(outcome.failures) > _MAX_FAILURES:
        lines.append(f"and {len(outcome.failures) - _MAX_FAILURES} other kinds: see result.json")
    if outcome.state is State.FINISHED and lines and not outcome.samples.failed:
        lines.append("Every sample was answered in the end.")
    return lines
