"""The summary: the verdict first, then what a reader looks for, on a page under 100 columns."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from outcomes import URLS, lost, outcome_of, record, steady

from lbrun.results.result import LoadGenOutcome, ServerOutcome
from lbrun.results.summary import headline, render_summary
from lbrun.results.verdict import State

RELAXED = ("minimum duration 10 s instead of 600 s", "1,000 samples instead of 13,368")


def test_the_first_line_of_a_valid_run(tmp_path: Path) -> None:
    record(tmp_path, steady(1500))
    assert render_summary(outcome_of(tmp_path), tmp_path).splitlines()[0] == (
        "VALID, official · llama3.1-8b Offline performance, round_robin over 3 servers: "
        "1,500 samples, 0 failed"
    )


def test_the_first_line_of_a_trial_says_which_rules_were_relaxed(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    assert headline(outcome_of(tmp_path, official=False, relaxed=RELAXED)) == (
        "VALID, trial (minimum duration 10 s instead of 600 s; 1,000 samples instead of 13,368) · "
        "llama3.1-8b Offline performance, round_robin over 3 servers: 3 samples, 0 failed"
    )


def test_the_first_line_of_a_failed_run_says_how_many_samples_failed(tmp_path: Path) -> None:
    record(tmp_path, steady(997) + [lost(i) for i in range(3)])
    line = headline(outcome_of(tmp_path))
    assert line.startswith("FAILED, official · 3 of 1,000 samples failed · llama3.1-8b")


def test_the_first_line_of_an_invalid_run_says_why(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    loadgen = LoadGenOutcome("INVALID", invalid_reasons=("min duration: not met", "min queries: not met"))
    line = headline(outcome_of(tmp_path, loadgen=loadgen))
    assert line.startswith("INVALID, official · min duration: not met (and 1 more) · ")


def test_the_first_line_of_an_interrupted_run(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    assert headline(outcome_of(tmp_path, state=State.INTERRUPTED)).startswith(
        "FAILED, official · interrupted ·"
    )


def test_an_error_of_many_lines_stays_in_the_first_line(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    lines = render_summary(
        outcome_of(tmp_path, errors=("no servers:\n  a\n  \x1b[2Jb",)), tmp_path
    ).splitlines()
    assert lines[0].startswith("FAILED, official · no servers: a [2Jb · ")
    assert lines[1] == ""


def test_a_plain_summary_is_narrow_uncoloured_and_complete(tmp_path: Path) -> None:
    record(tmp_path, steady(900) + [lost(i, server=2, message="\x1b[31m[bold]refused") for i in range(2)])
    (tmp_path / "result.json").touch()
    text = render_summary(outcome_of(tmp_path, relaxed=RELAXED, warnings=("clock moved",)), Path("/out/1"))
    _, *rest = text.splitlines()
    assert max(map(len, rest)) < 100
    assert "\x1b" not in text
    assert "LoadGen       its result is set aside" in text
    assert "VALID" not in text
    assert "902 issued, 900 completed, 2 failed" in text
    assert "906, 4 of them retries" in text
    assert re.search(r"^TTFT +5\.00 +5\.00 +5\.00 +5\.00 +5\.00 +5\.00$", text, re.MULTILINE)
    for url in URLS:
        assert re.search(rf"^{url.removeprefix('http://')} .* ready$", text, re.MULTILINE)
    assert "10.0.0.3:8000: 6 x REFUSED, 2 of them a sample's last: [31m[bold]refused" in text
    assert "minimum duration 10 s instead of 600 s" in text
    assert "clock moved" in text
    assert "Written to /out/1" in text
    assert "Run it again: lbrun strategy=round_robin" in text


def test_whole_answers_show_latencies_instead_of_token_times(tmp_path: Path) -> None:
    record(tmp_path, steady(30, streamed=False))
    text = render_summary(outcome_of(tmp_path), tmp_path)
    assert "TTFT" not in text
    assert "latency p50/p99" in text


def test_the_widest_servers_and_figures_stay_on_the_page(tmp_path: Path) -> None:
    record(tmp_path, steady(30))
    outcome = outcome_of(tmp_path)
    long = "https://a-very-long-host-name.some-region.example.com:8443/deployment/v1"
    assert outcome.metrics is not None
    traffic = replace(outcome.metrics, requests=10**7, failed=10**6, output_tokens=10**9)
    servers = tuple(ServerOutcome(long, "excluded", 100, 99, traffic=traffic) for _ in range(60))
    text = render_summary(replace(outcome, servers=servers), tmp_path)
    assert max(map(len, text.splitlines()[1:])) < 100
    assert "20 more servers: see result.json" in text
    for whole in ("10,000,000", "100.0 %", "1,000,000", "1,000,000,000", "5.00/5.00", "100/99", "excluded"):
        assert whole in text
    assert re.search(r"a-very-lon\S*…", text)


def test_the_table_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    record(tmp_path, steady(30))
    outcome = outcome_of(tmp_path)
    assert outcome.metrics is not None
    traffic = replace(outcome.metrics, requests=4_456, output_tokens=325_000)
    outcome = replace(outcome, servers=(ServerOutcome("http://10.20.30.40:8000", "ready", traffic=traffic),))
    lines = render_summary(outcome, tmp_path, width=80).splitlines()
    (row,) = (line for line in lines if line.startswith("10.20.30.40:8000"))
    assert row.split() == (
        ["10.20.30.40:8000", "4,456", "100.0", "%", "0", "325,000", "5.00/5.00", "1.00/1.00", "0/0", "ready"]
    )
    assert len(row) <= 80


def test_a_run_that_measured_nothing_still_has_a_summary(tmp_path: Path) -> None:
    outcome = replace(
        outcome_of(tmp_path, state=State.BROKEN, errors=("No API servers became ready",)),
        metrics=None,
        loadgen=None,
        servers=(ServerOutcome("http://a:1", "excluded"),),
    )
    text = render_summary(outcome, tmp_path)
    assert text.startswith("FAILED, official · No API servers became ready · ")
    assert re.search(r"^a:1 +- +- .* excluded$", text, re.MULTILINE)


def test_colours_only_when_asked_for(tmp_path: Path) -> None:
    record(tmp_path, steady(3))
    outcome = outcome_of(tmp_path)
    coloured = render_summary(outcome, tmp_path, colour=True)
    assert coloured.startswith("\x1b[1;32mVALID")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == render_summary(outcome, tmp_path).split()


def test_a_run_that_survived_failures_says_so(tmp_path: Path) -> None:
    survivor = lost(3)._replace(failure=0, n_tokens=5, done_ns=steady(1)[0].done_ns)
    record(tmp_path, [*steady(3), survivor])
    text = render_summary(outcome_of(tmp_path), tmp_path)
    assert text.startswith("VALID")
    assert "Every sample was answered in the end." in text
