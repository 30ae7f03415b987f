"""What a fault scenario is: what fails, when, and what the run must come to all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lbrun.errors import EXIT_INVALID, EXIT_VALID

if TYPE_CHECKING:
    from lbrun.faults.evidence import Evidence
    from lbrun.faults.stage import Stage

ANSWERED = frozenset({EXIT_VALID, EXIT_INVALID})
"""Exit statuses of a run in which every sample was answered; a fault may cost it LoadGen's latency limits."""

HUNG_OUT_WITHIN_S = 10.0
KILLED_OUT_WITHIN_S = 1.0
BACK_WITHIN_S = 5.0


class Mode(StrEnum):
    """The LoadGen scenario of a run: whole answers from a full queue, or streams that arrive at random."""

    OFFLINE = "offline"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a scenario must come to, besides what holds in every run (`lbrun.faults.invariants`).

    exit_status: of lbrun. lost: fewest and most samples that may fail; None: no upper bound.
    out_within_s: a broken server is out of service so soon; back_within_s: and in service so soon after it
    has returned. stays_in: no server is ever taken out. attempts_per_sample: at most so many, over the run.
    says: what result.json must contain, e.g. the name of the fault. cut: the run is killed, so that its
    result says FAILED and its books cannot balance. ends_within_s: after the last fault.
    """

    exit_status: frozenset[int] = ANSWERED
    lost: tuple[int, int | None] = (0, 0)
    out_within_s: float | None = None
    back_within_s: float | None = None
    stays_in: bool = False
    attempts_per_sample: float | None = None
    says: tuple[str, ...] = ()
    cut: bool = False
    ends_within_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario.

    act: starts the run, breaks things at defined points, and returns when nothing is left to break; what it
    waits for and does not come makes the scenario broken. modes: in which it makes sense. servers: settings
    of the pool beyond `lbrun.faults.servers.FAST`; None: lbrun starts its own. overrides: of every run.
    samples: issued by LoadGen, in multiples of 256 (the bundled data). bound_s: the whole scenario ends
    within. unless: why it cannot be run on this machine, None where it can. check: further problems.
    quick: modes in which it is cheap and telling enough for every run of the tests. alone: it needs the whole
    machine, and is never run beside others.
    """

    name: str
    about: str
    act: Callable[[Stage], None]
    expected: Expected = field(default_factory=Expected)
    modes: tuple[Mode, ...] = (Mode.OFFLINE, Mode.SERVER)
    servers: Mapping[str, Any] | None = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    samples: int = 1024
    target_qps: float = 100.0
    bound_s: float = 60.0
    unless: Callable[[], str | None] = lambda: None
    check: Callable[[Evidence], list[str]] = lambda evidence: []
    quick: tuple[Mode, ...] = ()
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a scenario: a row of the table.

    requests: samples that LoadGen issued; lost: of them failed; twice: completed more than once;
    false_successes: recorded as answered without a right answer. eject_s: from the fault to the ejection, the
    slowest server's; recover_s: from its return to its service. verdict: lbrun's own. problems: what did not
    hold. skipped: why it was not run.
    """

    scenario: str
    mode: Mode
    requests: int = 0
    lost: int = 0
    twice: int = 0
    false_successes: int = 0
    retries: int = 0
    eject_s: float | None = None
    recover_s: float | None = None
    verdict: str = ""
    took_s: float = 0.0
    problems: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def held(self) -> bool:
        """Everything that must hold did; a skipped scenario says nothing."""
        return not self.problems
