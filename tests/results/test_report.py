"""The report: one file that loads nothing and runs nothing, whatever the servers said."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outcomes import MS, START_NS, URLS, lost, outcome_of, record, steady

from lbrun.attempt import FailureKind
from lbrun.results.events import EventLog, read_events
from lbrun.results.records import read_requests
from lbrun.results.report import _marks, render_report, write_report
from lbrun.results.result import LoadGenOutcome
from lbrun.results.timeline import cumulative, timeline

EVIL = "<script>alert('x')</script>\"'&$x$"
_VOID = {"meta", "link", "br", "img", "input"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _page_of(run_dir: Path, **more: object) -> _Page:
    record(run_dir, [*steady(60), lost(99, message=EVIL)])
    log = EventLog(run_dir, START_NS)
    log.write("state", server=URLS[0], reason=EVIL, **{"from": "ready", "to": "ejected", EVIL: EVIL})
    log.close()
    outcome = outcome_of(
        run_dir,
        relaxed=(EVIL,),
        errors=(EVIL,),
        warnings=(EVIL,),
        config={EVIL: {EVIL: [EVIL]}},
        loadgen=LoadGenOutcome("VALID", EVIL, 1.0, {EVIL: EVIL}),
    )
    servers = tuple(replace(server, state=EVIL, last_error=EVIL) for server in outcome.servers)
    outcome = replace(outcome, servers=servers, model=EVIL, command=EVIL, started_at=EVIL, **more)
    return _Page(write_report(outcome, run_dir).read_text(encoding="utf-8"))


def test_foreign_text_is_escaped_everywhere(tmp_path: Path) -> None:
    page = _page_of(tmp_path)
    assert page.open == []
    assert "script" not in page.tags
    assert sum("<script>alert" in text for text in page.texts) >= 15


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    page = _page_of(tmp_path)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    text = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "<!DOCTYPE svg" not in text


def test_the_plots_share_no_ids_and_take_the_pages_colour(tmp_path: Path) -> None:
    page = _page_of(tmp_path)
    assert page.tags.count("svg") == 3
    assert len(page.ids) == len(set(page.ids))
    text = (tmp_path / "report.html").read_text()
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "currentColor" in text
    assert "#010203" not in text


def test_a_server_named_like_markup_is_escaped_in_the_plots(tmp_path: Path) -> None:
    url = f"http://a:1/{EVIL}"
    record(tmp_path, steady(30))
    page = _Page(render_report(outcome_of(tmp_path, urls=(URLS[0], url, URLS[2])), tmp_path))
    assert page.open == []
    assert "script" not in page.tags


def test_a_pool_of_many_servers_is_drawn_as_one(tmp_path: Path) -> None:
    record(tmp_path, steady(30))
    urls = (*URLS, *(f"http://x:{i}" for i in range(30)))
    assert "all 33 servers" in render_report(outcome_of(tmp_path, urls=urls), tmp_path)


@pytest.mark.parametrize("rows", [[], [lost(1)]])
def test_a_run_without_an_answer_has_a_report_without_plots(tmp_path: Path, rows: list) -> None:
    record(tmp_path, rows)
    page = _Page(render_report(outcome_of(tmp_path), tmp_path))
    assert "svg" not in page.tags
    assert page.open == []


def test_a_run_of_one_sample_can_be_drawn(tmp_path: Path) -> None:
    record(tmp_path, steady(1))
    assert _Page(render_report(outcome_of(tmp_path), tmp_path)).tags.count("svg") == 3


def test_the_timeline_accounts_for_every_token_and_every_second_in_flight(tmp_path: Path) -> None:
    record(tmp_path, [*steady(50), lost(99)])
    data = timeline(read_requests(tmp_path), URLS, n_bins=37)
    assert data is not None
    width = data.edges_s[1] - data.edges_s[0]
    assert sum(band.sum() for band in data.tokens_per_s) * width == pytest.approx(50 * 16)
    busy_s = sum((row.done_ns - row.sent_ns) / 1e9 for row in steady(50))
    assert sum(band.sum() for band in data.in_flight) * width == pytest.approx(busy_s)
    assert all((band >= -1e-9).all() for band in data.in_flight)


def test_requests_that_failed_are_in_flight_while_they_are_out(tmp_path: Path) -> None:
    first = steady(1)[0]
    hung = int(FailureKind.FIRST_BYTE_TIMEOUT)
    attempts = [
        (1, START_NS + MS, START_NS + 8_001 * MS, hung, "no byte"),
        (0, START_NS + 8_000 * MS, START_NS + 8_500 * MS, 0, ""),
    ]
    moved = first._replace(
        query_id=9, server=0, n_attempts=2, sent_ns=START_NS + 8_000 * MS, first_byte_ns=0, first_token_ns=0,
        done_ns=START_NS + 8_500 * MS, attempts=attempts,
    )  # fmt: skip
    record(tmp_path, [moved])
    data = timeline(read_requests(tmp_path), URLS, n_bins=17)
    assert data is not None
    width = data.edges_s[1] - data.edges_s[0]
    assert [band.sum() * width for band in data.in_flight] == pytest.approx([0.5, 8.0, 0.0])


def test_a_server_that_is_suspected_for_a_moment_has_not_left(tmp_path: Path) -> None:
    record(tmp_path, steady(30))
    steps = [("ready", "suspect"), ("suspect", "ready"), ("ready", "ejected"), ("trial", "ready")]
    lines = [
        json.dumps({"event": "state", "t_s": i, "server": URLS[0], "from": a, "to": b})
        for i, (a, b) in enumerate(steps)
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    assert _marks(list(read_events(tmp_path))) == [(2.0, "bad"), (3.0, "good")]


def test_the_timeline_of_records_without_an_answer_is_none(tmp_path: Path) -> None:
    assert timeline(read_requests(tmp_path), URLS) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_distribution_function_rises_to_one_at_the_largest_value(values: list[float]) -> None:
    curve = cumulative(np.array(values))
    assert curve is not None
    ms, shares = curve
    assert (np.diff(ms) >= 0).all()
    assert (np.diff(shares) >= 0).all()
    assert (ms[0], ms[-1], shares[-1]) == (min(values), max(values), 1)


def test_the_distribution_function_of_nothing_is_none() -> None:
    assert cumulative(np.array([])) is None
