"""``report.html``: a run in one file that needs nothing else, to keep and to send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from lbrun.results.events import read_events
from lbrun.results.records import read_requests
from lbrun.results.result import Outcome, ServerOutcome, replace_text
from lbrun.results.summary import headline, middle_and_tail, spreads
from lbrun.results.timeline import cumulative, latencies_ms, timeline
from lbrun.results.verdict import Verdict
from lbrun.results.wording import ABSENT, clean, count, duration, number, percent, short_url

FILE_NAME = "report.html"
_MAX_EVENTS = 500
_MAX_MARKS = 60
_OUT = frozenset({"ejected", "excluded", "starting"})
_RETURNING = _OUT | {"trial"}
_NUMERIC = re.compile(r"[-\d.,/% ]*").fullmatch


def write_report(outcome: Outcome, run_dir: Path) -> Path:
    """Write the report of a run from its outcome, records and events. Raises OSError."""
    path = run_dir / FILE_NAME
    replace_text(path, render_report(outcome, run_dir))
    return path


def render_report(outcome: Outcome, run_dir: Path) -> str:
    """The page. Whatever came from outside (servers, config, data) is escaped; the page loads nothing."""
    events = [event for event, _ in zip(read_events(run_dir), range(_MAX_EVENTS), strict=False)]
    verdict = str(outcome.judgement.verdict)
    head, _, rest = headline(outcome).partition(" · ")
    style = resources.files("lbrun.results").joinpath("report.css").read_text(encoding="utf-8")
    sections = [
        _section("Why", _list(outcome.judgement.reasons)),
        _section("Results", _key_figures(outcome)),
        _section("Servers", _servers(outcome)),
        _section("Last errors", _list(_last_errors(outcome.servers))),
        *_plots(outcome, run_dir, events),
        _section("Failed attempts", _list(map(str, outcome.failures))),
        _section("Rules relaxed for this trial", _list(outcome.relaxed)),
        _section("Notes", _list(outcome.warnings)),
        _section("Events", _events(events)),
        _section(
            "LoadGen" if verdict != "FAILED" else "LoadGen, set aside",
            _pairs(outcome.loadgen.summary if outcome.loadgen else {}),
        ),
        _section("Environment", _pairs(outcome.environment)),
        _section("Configuration", _details("resolved configuration", outcome.config)),
        _section("Run it again", f"<pre>{escape(outcome.command)}</pre>" if outcome.command else ""),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing is fetched and no script runs, whatever gets into the page.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(verdict)} · {escape(outcome.model)} {escape(outcome.scenario)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 class="{verdict.lower()}">{escape(head)}</h1>\n<p class="lead">{escape(rest)}</p>\n'
        f'<p class="small">{escape(outcome.started_at)}</p>\n'
        + "".join(sections)
        + "</main>\n</body>\n</html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}</section>\n" if body else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text cells; numbers stand to the right."""
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    numeric = [all(map(_NUMERIC, column)) for column in zip(*lines, strict=True)]
    classes = [' class="n"' if is_numeric else "" for is_numeric in numeric]
    head = _cells("th", header, classes) if any(header) else ""
    body = "".join(f"<tr>{_cells('td', line, classes)}</tr>\n" for line in lines)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'
    )


def _cells(tag: str, cells: Iterable[str], classes: Iterable[str]) -> str:
    return "".join(f"<{tag}{c}>{escape(cell)}</{tag}>" for cell, c in zip(cells, classes, strict=True))


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(clean(line, 1000))}</li>\n" for line in lines)
    return f"<ul>\n{items}</ul>\n" if items else ""


def _pairs(values: Mapping[str, object]) -> str:
    rows = []
    for key, value in values.items():
        nested = isinstance(value, Mapping | list | tuple)
        rows.append((str(key), json.dumps(value, default=str) if nested else str(value)))
    return _table(("", ""), rows)


def _details(title: str, value: object) -> str:
    if not value:
        return ""
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    return f"<details><summary>{escape(title)}</summary>\n<pre>{escape(text)}</pre></details>\n"


def _key_figures(outcome: Outcome) -> str:
    samples, attempts, loadgen, traffic = outcome.samples, outcome.attempts, outcome.loadgen, outcome.metrics
    rows = []
    failed = outcome.judgement.verdict is Verdict.FAILED  # LoadGen takes failed samples for answers
    if loadgen is not None and loadgen.value is not None and not failed:
        rows.append((f"LoadGen: {loadgen.metric}", f"{loadgen.value:,.2f}"))
    rows += [
        ("Samples issued", count(samples.issued)),
        ("completed", count(samples.completed)),
        ("failed", count(samples.failed)),
        ("Attempts", count(attempts.total)),
        ("retried", count(attempts.retried)),
        ("streams begun again", count(attempts.restarted_streams)),
        ("Duration of the run", duration(outcome.duration_s)),
    ]
    if traffic is None:
        return _table(("", ""), rows)
    rows += [
        ("Samples/s", number(traffic.requests_per_s)),
        ("Output tokens/s", number(traffic.output_tokens_per_s)),
        ("Input tokens/s", number(traffic.input_tokens_per_s)),
    ]
    times = _table(
        ("ms", "mean", "min", "p50", "p90", "p99", "p99.9", "max"),
        (
            (name, *(number(x) for x in (s.mean, s.min, s.p50, s.p90, s.p99, s.p99_9, s.max)))
            for name, s in spreads(traffic)
        ),
    )
    return f'<div class="beside">\n{_table(("", ""), rows)}{times}</div>\n'


_SERVER_COLUMNS = (
    "server",
    "state",
    "requests",
    "completed",
    "share",
    "failed",
    "tokens",
    "tokens/s",
    "TTFT p50/p99 ms",
    "TPOT p50/p99 ms",
    "latency p50/p99 ms",
    "out/back",
)


def _servers(outcome: Outcome) -> str:
    """A row a server. A column that has nothing to say (TTFT without streams) only takes room from others."""
    rows = [_server_row(server) for server in outcome.servers]
    kept = [i for i, cells in enumerate(zip(*rows, strict=True)) if set(cells) - {ABSENT}]
    return _table([_SERVER_COLUMNS[i] for i in kept], ([row[i] for i in kept] for row in rows))


def _server_row(server: ServerOutcome) -> list[str]:
    traffic = server.traffic
    if traffic is None:
        measured = [ABSENT] * 9
    else:
        measured = [
            count(traffic.requests),
            count(traffic.completed),
            percent(traffic.share),
            count(traffic.failed),
            count(traffic.output_tokens),
            number(traffic.output_tokens_per_s),
            *map(middle_and_tail, (traffic.ttft_ms, traffic.tpot_ms, traffic.latency_ms)),
        ]
    return [short_url(server.url), server.state, *measured, server.out_and_back]


def _last_errors(servers: Iterable[ServerOutcome]) -> list[str]:
    return [f"{short_url(server.url)}: {server.last_error}" for server in servers if server.last_error]


def _events(events: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for event in events:
        more = {k: v for k, v in event.items() if k not in ("ts", "t_s", "event", "server", "reason")}
        rows.append(
            (
                f"{event['t_s']:.3f}" if isinstance(event.get("t_s"), float | int) else "",
                str(event.get("event", "")),
                short_url(str(event.get("server", ""))),
                " ".join(f"{key}={value}" for key, value in more.items()),
                clean(str(event.get("reason", ""))),
            )
        )
    return _table(("s", "event", "server", "", "reason"), rows)


def _plots(outcome: Outcome, run_dir: Path, events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sections with plots; none for a run without an answer."""
    requests = read_requests(run_dir)
    urls = [server.url for server in outcome.servers]
    data = timeline(requests, urls)
    if data is None:
        return []
    # Only here: a report without plots, and everything else, can do without matplotlib's start-up.
    from lbrun.results.plots import cumulative_svg, over_time_svg

    names = [short_url(url) for url in urls]
    marks = [mark for mark in _marks(events) if mark[0] >= data.edges_s[0]]
    pairs = (("TTFT", "issued_ns", "first_token_ns"), ("latency", "issued_ns", "done_ns"))
    curves = []
    for label, begin, end in pairs:
        curve = cumulative(latencies_ms(requests, begin, end))
        if curve is not None:
            curves.append((label, *curve))
    tokens = over_time_svg(data, data.tokens_per_s, names, "output tokens/s", marks, "tokens")
    in_flight = over_time_svg(data, data.in_flight, names, "requests in flight", marks, "flight")
    legend = (
        '<p class="small">Dashed: a server left service (red) or came back (green).</p>\n' if marks else ""
    )
    return [
        _section("Throughput", f"<figure>{tokens}</figure>\n{legend}"),
        _section("In flight", f"<figure>{in_flight}</figure>\n"),
        _section("Share of samples answered within", f"<figure>{cumulative_svg(curves, 'cdf')}</figure>\n"),
    ]


def _marks(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    """When servers left service and came back; one that is suspected for a moment has not left."""
    marks = []
    for event in events:
        before, after, at_s = event.get("from"), event.get("to"), event.get("t_s")
        if isinstance(at_s, float | int):
            if after in _OUT:
                marks.append((float(at_s), "bad"))
            elif after == "ready" and before in _RETURNING:
                marks.append((float(at_s), "good"))
    return marks[:_MAX_MARKS]
