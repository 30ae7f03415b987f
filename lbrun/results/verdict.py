"""What a run is worth. Pure: what is known of a run in, verdict and reasons out.

    FAILED   a sample has no answer, the run broke or was interrupted, or the books do not balance
    INVALID  everything was answered, and LoadGen's rules were not met, or its log holds errors
    VALID    neither

LoadGen alone cannot tell: it accepts a completion without a byte of answer and then reports no errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lbrun.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_VALID
from lbrun.results.wording import count, things


class Verdict(StrEnum):
    """What a run is worth."""

    VALID = "VALID"
    INVALID = "INVALID"
    FAILED = "FAILED"


class State(StrEnum):
    """How far a run has come: on its way (or killed), to its end, to Ctrl-C, or until it broke."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples that LoadGen issued, those with a real answer, and those without."""

    issued: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, why it is not VALID (most important first), and the process's exit status."""

    verdict: Verdict
    reasons: tuple[str, ...]
    exit_status: int


def judge(
    samples: SampleCounts,
    *,
    state: State,
    mode: str,
    loadgen_result: str | None,
    invalid_reasons: Sequence[str] = (),
    loadgen_errors: Sequence[str] = (),
    errors: Sequence[str] = (),
    recorded: int | None = None,
) -> Judgement:
    """Judge a run.

    mode: ``performance`` or ``accuracy``; only the former has a result of LoadGen's.
    loadgen_result: ``VALID``, ``INVALID``, or None where its summary has none.
    invalid_reasons: the rules that LoadGen found not met. loadgen_errors: ERROR lines of its log.
    errors: whatever else broke the run, in words. recorded: rows in the run's records, None: not counted.
    """
    reasons = list(errors)
    if samples.failed:
        what = "sample" if samples.issued == 1 else "samples"
        first = len(reasons) if state is State.BROKEN else 0  # what broke the run tells more than how many
        reasons.insert(first, f"{count(samples.failed)} of {count(samples.issued)} {what} failed")
    if state is State.INTERRUPTED:
        reasons.insert(0, "interrupted")
    elif state is not State.FINISHED and not reasons:
        reasons.append("the run was cut")
    if samples.issued != samples.completed + samples.failed:
        missing = samples.issued - samples.completed - samples.failed
        reasons.append(
            f"the books do not balance: {count(samples.issued)} samples issued, "
            f"{count(samples.completed)} completed, {count(samples.failed)} failed ({missing:+,})"
        )
    if recorded is not None and recorded != samples.completed + samples.failed:
        reasons.append(
            f"the records are incomplete: {things(recorded, 'row')} for "
            f"{things(samples.completed + samples.failed, 'sample')}"
        )
    if samples.issued == 0 and state is State.FINISHED:
        reasons.append("LoadGen issued no sample")
    reasons.extend(f"LoadGen: {error}" for error in loadgen_errors if "twice" in error)
    if state is State.FINISHED and mode == "performance" and loadgen_result not in ("VALID", "INVALID"):
        reasons.append("LoadGen left no result")
    if reasons:
        status = EXIT_INTERRUPTED if state is State.INTERRUPTED else EXIT_FAILED
        return Judgement(Verdict.FAILED, tuple(reasons), status)
    # Completing a sample twice is a fault of ours, above. For the others: a submission whose log holds
    # errors is refused, though every sample has a real answer (in Server scenarios an answer of a single
    # token is such an error).
    why = [*invalid_reasons, *(f"LoadGen: {error}" for error in loadgen_errors)]
    if loadgen_result == "INVALID" or loadgen_errors:
        return Judgement(Verdict.INVALID, tuple(why) or ("LoadGen's rules were not met",), EXIT_INVALID)
    return Judgement(Verdict.VALID, (), EXIT_VALID)
