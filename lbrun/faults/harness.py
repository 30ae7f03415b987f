"""Carries out one scenario: stage, run, faults, end, evidence, verdict."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from lbrun.embedded.settings import EmbeddedSettings
from lbrun.faults.books import audit
from lbrun.faults.command import NotInTimeError
from lbrun.faults.evidence import Evidence
from lbrun.faults.invariants import check_cut, check_expected, check_run, completed_twice, false_successes
from lbrun.faults.scenario import Mode, Row, Scenario
from lbrun.faults.stage import Stage

_SHOWN = 3


def carry_out(
    scenario: Scenario, mode: Mode, keep: Path | None = None, given_up: threading.Event | None = None
) -> Row:
    """Run a scenario for real and judge it. May be called from several threads.

    keep: a folder for what the runs of broken scenarios left. given_up: ends it soon once it is set.
    """
    reason = scenario.unless()
    if reason is not None:
        return Row(scenario=scenario.name, mode=mode, skipped=reason)
    base = Path(tempfile.mkdtemp(prefix=f"lbrun-faults-{scenario.name}-"))
    began_s = time.monotonic()
    stage = Stage(scenario, mode, base, began_s + scenario.bound_s, given_up)
    try:
        problems: list[str] = []
        evidence: Evidence | None = None
        try:
            scenario.act(stage)
            stage.finish()
            evidence = gather(stage, stage.run.wait())
        except NotInTimeError as error:
            problems.append(str(error))
            if stage.has_ended:  # before it was broken as planned; what it left may tell why
                evidence = gather(stage, stage.run.wait())
        except Exception as error:  # one scenario that cannot be carried out must not end the catalogue
            problems.append(f"could not be carried out: {type(error).__name__}: {error}")
        row = Row(scenario=scenario.name, mode=mode, verdict="-", problems=tuple(problems))
        if evidence is not None:
            try:
                judged = judge(scenario, evidence, time.monotonic() - began_s)
                row = replace(judged, problems=(*problems, *judged.problems))
            except Exception as error:  # nor one that left something that nobody expected
                problems.append(f"could not be judged: {type(error).__name__}: {error}")
                row = replace(row, problems=tuple(problems))
        if row.problems and keep is not None:
            stage.end()
            shutil.copytree(base, keep / f"{scenario.name}-{mode}", dirs_exist_ok=True)
        return row
    finally:
        stage.end()
        shutil.rmtree(base, ignore_errors=True)


def judge(scenario: Scenario, evidence: Evidence, took_s: float) -> Row:
    """The row of a run that has ended."""
    expected = scenario.expected
    problems = list(check_cut(evidence) if expected.cut else check_run(evidence))
    problems += check_expected(evidence, expected)
    problems += scenario.check(evidence)
    twice, wrong = completed_twice(evidence), false_successes(evidence)
    if twice:
        problems.append(f"{twice} samples completed twice")
    problems += wrong[:_SHOWN]
    problems += islice(audit(evidence), _SHOWN)
    return Row(
        scenario=scenario.name,
        mode=evidence.mode,
        requests=evidence.issued,
        lost=evidence.lost,
        twice=twice,
        false_successes=len(wrong),
        retries=evidence.retries,
        eject_s=evidence.eject_s(),
        recover_s=evidence.recover_s(),
        verdict=str(evidence.result.get("verdict", "-")),
        took_s=took_s,
        problems=tuple(problems),
    )


def gather(stage: Stage, exit_status: int) -> Evidence:
    """What is known once lbrun has ended; the pool must still be there."""
    settings = stage.servers.settings if stage.has_pool else EmbeddedSettings()
    return Evidence(
        folder=stage.folder,
        mode=stage.mode,
        exit_status=exit_status,
        urls=stage.urls,
        servers=settings,
        journals=stage.servers.journals() if stage.has_pool else (),
        marks=stage.marks,
        last_fault_s=stage.last_fault_s,
        ended_s=stage.run.ended_s,
        told=stage.run.told,
        notes=stage.notes,
    )
