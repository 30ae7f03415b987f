"""The command: what it lists, chooses, refuses, prints and writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from lbrun.errors import EXIT_INTERRUPTED
from lbrun.faults import __main__ as command
from lbrun.faults.catalogue import CATALOGUE
from lbrun.faults.scenario import Mode, Row, Scenario
from lbrun.faults.table import markdown, totals


def test_names_are_unique_and_every_scenario_says_what_it_does() -> None:
    names = [scenario.name for scenario in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(scenario.about and scenario.modes for scenario in CATALOGUE)
    assert {mode for scenario in CATALOGUE for mode in scenario.quick} == set(Mode)
    assert all(set(scenario.quick) <= set(scenario.modes) for scenario in CATALOGUE)


def test_the_list_has_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [scenario.name for scenario in CATALOGUE]


def test_scenarios_are_chosen_by_name_by_beginning_and_by_mode() -> None:
    everything = command.chosen(None, None)
    assert len(everything) == sum(len(scenario.modes) for scenario in CATALOGUE)
    assert [(s.name, m) for s, m in command.chosen(["sigkill"], None)] == [
        ("sigkill", Mode.OFFLINE),
        ("sigkill", Mode.SERVER),
    ]
    assert {s.name for s, _ in command.chosen(["sigstop*"], None)} == {"sigstop", "sigstop_2_s"}
    assert {m for _, m in command.chosen(None, Mode.SERVER)} == {Mode.SERVER}


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "no_such_thing"]) == 2
    assert "'no_such_thing'" in capsys.readouterr().err


ROWS = {
    "sigkill": Row(scenario="sigkill", mode=Mode.OFFLINE, requests=10, eject_s=0.25, verdict="VALID"),
    "partition": Row(scenario="partition", mode=Mode.OFFLINE, skipped="network namespaces need root"),
    "poison": Row(scenario="poison", mode=Mode.OFFLINE, requests=5, lost=2, problems=("2 samples lost",)),
}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(scenario: Scenario, mode: Mode, keep: Path | None, given_up: threading.Event) -> Row:
        return ROWS[scenario.name]

    monkeypatch.setattr(command, "carry_out", carry_out)


@pytest.mark.usefixtures("made_up")
def test_one_broken_scenario_is_told_and_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    arguments = ["--only", *ROWS, "--scenario", "offline", "--json", str(file), "--markdown"]
    assert command.main(arguments) == 1
    out = capsys.readouterr().out
    assert "2 samples lost" in out
    assert "network namespaces need root" in out
    assert "1 of 2 scenarios held, 1 skipped; 15 samples" in out
    assert out.rstrip().splitlines()[-1].startswith("| `partition`: ")
    written = {row["scenario"]: row for row in json.loads(file.read_text())}
    assert written["sigkill"]["held"] is True
    assert written["poison"]["held"] is False


@pytest.mark.usefixtures("made_up")
def test_skipped_scenarios_fail_nothing() -> None:
    assert command.main(["--only", "sigkill", "partition", "--scenario", "offline"]) == 0


def test_the_table_in_markdown_has_as_many_cells_in_each_line() -> None:
    lines = markdown(list(ROWS.values()), CATALOGUE).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(ROWS)
    assert "held" in totals(list(ROWS.values()))


@pytest.mark.usefixtures("made_up")
def test_the_table_goes_between_the_marks_of_a_document_in_the_catalogues_order(tmp_path: Path) -> None:
    file = tmp_path / "doc.md"
    file.write_text("before\n<!-- catalogue -->\nold\n<!-- /catalogue -->\nafter\n")
    arguments = ["--only", *ROWS, "--scenario", "offline", "--jobs", "3", "--markdown", str(file)]
    assert command.main(arguments) == 1
    first, *table, last = file.read_text().splitlines()
    assert (first, last) == ("before", "after")
    assert "old" not in table
    rows = [line for line in table if line.startswith("| `")]
    order = [scenario.name for scenario in CATALOGUE if scenario.name in ROWS]
    assert [row.split("`")[1] for row in rows] == order
    assert "3 scenarios at once" in table[1]
    assert "held (VALID)" in rows[order.index("sigkill")]
    assert "**broken** (2 samples lost)" in rows[order.index("poison")]
    assert "skipped: network namespaces need root" in rows[order.index("partition")]


@pytest.mark.parametrize("text", [None, "no marks"])
def test_a_document_without_marks_is_refused_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    file = tmp_path / "doc.md"
    if text is not None:
        file.write_text(text)
    assert command.main(["--markdown", str(file)]) == command.main(["--jobs", "0"]) == 2
    assert "doc.md" in capsys.readouterr().err


def test_an_interrupt_ends_what_runs_and_begins_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    one_runs = threading.Event()

    def carry_out(scenario: Scenario, mode: Mode, keep: Path | None, given_up: threading.Event) -> Row:
        begun.append(scenario.name)
        if len(begun) == 2:
            one_runs.set()
            assert given_up.wait(30)
        return Row(scenario=scenario.name, mode=mode)

    def show(text: str, *args: object) -> None:
        if begun and not one_runs.is_set():
            assert one_runs.wait(30)
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "carry_out", carry_out)
    monkeypatch.setattr(command, "show", show)
    assert command.main([]) == EXIT_INTERRUPTED
    assert len(begun) == 2
