"""The benchmarks report; here only that they measure what they say, on no clock's word."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import processes, table
from benchmarks.figures import BenchmarkError, Figure, Report, median_figure, ratios, read_report
from benchmarks.peers import comparison, tokenizer
from benchmarks.program import Run, further_us
from benchmarks.server import Answers, running
from lbrun.formats import FormatOptions, make_format

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the server is compiled with cc")


def post(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v1/completions", body=b"{}")
    body = connection.getresponse().read()
    connection.close()
    return body


def run_of(n: int, cpu_s: float) -> Run:
    return Run(n=n, cpu_s=cpu_s, wall_s=1.0, peak_mb=1.0, result={})


@needs_compiler
def test_the_server_answers_every_port_and_counts_what_it_saw() -> None:
    with running(Answers(), n_ports=3) as server:
        assert len(set(server.ports)) == 3
        result = make_format("completions", FormatOptions(model="m", backend="vllm")).decode(
            post(server.ports[2])
        )
        assert result.n_tokens == 128
        connection = http.client.HTTPConnection("127.0.0.1", server.ports[1], timeout=20)
        for _ in range(2):  # keep-alive
            connection.request("GET", "/v1/models")
            assert json.load(connection.getresponse())["data"][0]["id"] == "bench"
        connection.close()
        assert server.stats() == {"posts": 1, "peak_open": 0}


@needs_compiler
@pytest.mark.parametrize(
    "answers", [Answers(5), Answers(5, 1_000), Answers(5, 1_000, phases=4), Answers(5, chat=True)]
)
def test_a_stream_is_complete_in_a_burst_and_paced(answers: Answers) -> None:
    with running(answers) as server:
        name = "chat" if answers.chat else "completions"
        decoder = make_format(name, FormatOptions(model="m", backend="vllm", stream=True)).stream_decoder()
        decoder.feed(post(server.ports[0]))
        assert decoder.finish().n_tokens == 5
        assert server.stats() == {"posts": 1, "peak_open": int(answers.interval_us > 0)}


def test_the_cost_of_a_further_sample_leaves_start_up_out() -> None:
    assert further_us(run_of(1_000, 2.0), run_of(101_000, 5.0)) == pytest.approx(30.0)


@pytest.mark.parametrize("more", [run_of(1_000, 5.0), run_of(2_000, 1.9)])
def test_two_runs_that_say_nothing_give_no_figure(more: Run) -> None:
    with pytest.raises(BenchmarkError):
        further_us(run_of(1_000, 2.0), more)


def test_a_figure_is_the_median_and_met_up_to_its_target() -> None:
    figure = median_figure("a", "A", [3.0, 1.0, 2.0], "us", target=2.0)
    assert (figure.value, figure.met) == (2.0, True)
    assert median_figure("a", "A", [2.1], "us", target=2.0).met is False
    assert Figure("a", "A", 1.0, "us").met is None


def test_reports_survive_their_file_and_compare_by_ratio(tmp_path: Path) -> None:
    figures = [median_figure("a", "A", [3.0, 1.0], "us", 5.0, "how"), Figure("b", "B", 4.0, "s")]
    report = Report(machine={"cores": 2}, date="2026-01-02", figures=figures, failures={"c": "why"})
    report.write(tmp_path / "report.json")
    again = read_report(tmp_path / "report.json")
    assert again == report
    assert ratios([Figure("a", "A", 1.0, "us"), Figure("new", "N", 1.0, "us")], again.figures) == {"a": 0.5}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "figures": {"a": {}}}'])
def test_a_file_that_is_no_report_is_refused_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=r"report\.json"):
        read_report(path)


def a_report(*figures: Figure) -> Report:
    machine = {
        "processor": "P",
        "cores": 2,
        "python": "3",
        "memory_gib": 8,
        "kernel": "6",
        "load_average": 0.5,
    }
    return Report(machine=machine, date="2026-01-02T03:04", settings={"repeats": 3}, figures=[*figures])


def test_figures_replace_those_between_the_marks_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.insert(path, a_report(Figure("a", "A", 3.0, "us", 2.0, note="how")))
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "| A | 3 us | 2 | **missed** | how |" in lines
    assert "old" not in lines


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("text")
    with pytest.raises(BenchmarkError, match=r"page\.md"):
        table.insert(path, a_report())
    assert path.read_text() == "text"


def test_a_baseline_that_is_kept_can_be_compared_with() -> None:
    baseline = Path(table.__file__).with_name("results") / "baseline.json"
    report = read_report(baseline)
    assert ratios(report.figures, report.figures)


def test_the_usage_of_a_tree_includes_its_children() -> None:
    child = "import sys; held = bytearray(60_000_000); print('ready', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        used = processes.usage(process.pid)
        process.communicate(b"")
    assert used.cpu_s > 0
    assert 60 < used.pss_mb <= used.rss_mb <= used.peak_mb


def test_peers_are_taken_from_the_environments_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="setup"):
        comparison.benchmarks([tmp_path])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "aiperf").touch()
    assert [name for name, _ in comparison.benchmarks([tmp_path])] == ["lbrun beside peers", "AIPerf"]


def test_the_tokenizer_for_peers_has_a_token_for_every_byte(tmp_path: Path) -> None:
    tokenizers: Any = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer.from_file(str(tokenizer.write(tmp_path / "t") / "tokenizer.json"))
    text = "x y\u00e9\u4e16\n"
    ids = made.encode(text).ids
    assert len(ids) == len(text.encode())
    assert made.decode(ids) == text
