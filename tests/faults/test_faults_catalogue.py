"""The catalogue, for real. A few scenarios run always, all of them with ``pytest -m faults``."""

from __future__ import annotations

import pytest

from lbrun.faults.catalogue import CATALOGUE
from lbrun.faults.harness import carry_out
from lbrun.faults.scenario import Mode, Scenario
from lbrun.faults.soak import soak


def cases(quick: bool) -> list[object]:
    return [
        pytest.param(
            scenario, mode, id=f"{scenario.name}-{mode}", marks=pytest.mark.timeout(scenario.bound_s * 2)
        )
        for scenario in CATALOGUE
        for mode in scenario.modes
        if (mode in scenario.quick) == quick
    ]


def check(scenario: Scenario, mode: Mode) -> None:
    row = carry_out(scenario, mode)
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.problems == ()


@pytest.mark.parametrize(("scenario", "mode"), cases(quick=True))
def test_a_run_survives(scenario: Scenario, mode: Mode) -> None:
    check(scenario, mode)


@pytest.mark.faults
@pytest.mark.parametrize(("scenario", "mode"), cases(quick=False))
def test_a_run_survives_the_rest(scenario: Scenario, mode: Mode) -> None:
    check(scenario, mode)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_memory_and_descriptors_stay_flat_over_ten_minutes_of_faults() -> None:
    result = soak(10)
    assert result.row.problems == (), result.describe()
