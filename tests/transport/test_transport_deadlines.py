"""Deadlines, as pure arithmetic; and the settings behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.attempt import FailureKind
from lbrun.transport import Limits, Timeouts
from lbrun.transport.deadlines import END_GRACE_NS, Deadlines

S = 1_000_000_000
SENT = 100 * S
ALL = Deadlines(Timeouts(first_byte_s=10, idle_s=5, total_s=30))


@pytest.mark.parametrize(
    ("after_s", "first_byte_s", "last_byte_s", "kind"),
    [
        (10, None, None, None),
        (10.1, None, None, FailureKind.FIRST_BYTE_TIMEOUT),
        (14, 9, 9, None),
        (14.1, 9, 9, FailureKind.IDLE_TIMEOUT),
        (30, 9, 29, None),
        (30.1, 9, 29, FailureKind.TOTAL_TIMEOUT),
    ],
)
def test_each_deadline_counts_from_its_own_event(
    after_s: float, first_byte_s: float | None, last_byte_s: float | None, kind: FailureKind | None
) -> None:
    first_ns = 0 if first_byte_s is None else SENT + int(first_byte_s * S)
    last_ns = 0 if last_byte_s is None else SENT + int(last_byte_s * S)
    missed = ALL.overdue(SENT + int(after_s * S), SENT, first_ns, last_ns, last_ns, False, 200)
    assert (missed.kind if missed else None) == kind


def test_ended_stream_is_complete_within_a_second_whatever_the_deadlines() -> None:
    last_ns = SENT + 40 * S
    assert ALL.overdue(last_ns + END_GRACE_NS, SENT, SENT + S, last_ns, last_ns, True, 200) is None
    missed = ALL.overdue(last_ns + END_GRACE_NS + 1, SENT, SENT + S, last_ns, last_ns, True, 200)
    assert missed is not None
    assert missed.kind is None
    assert END_GRACE_NS / 1e9 + Timeouts().sweep_interval_s() < 1


@given(st.integers(0, 10**15), st.booleans())
def test_without_limits_nothing_is_ever_overdue(after_ns: int, begun: bool) -> None:
    never = Deadlines(Timeouts(first_byte_s=None, idle_s=None, total_s=None))
    first_ns = SENT + 1 if begun else 0
    assert never.overdue(SENT + after_ns, SENT, first_ns, SENT + 1, SENT + 1, False, 200) is None


@pytest.mark.parametrize("field", ["connect_s", "first_byte_s", "idle_s", "total_s", "keepalive_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_timeouts_must_be_positive(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Timeouts(**{field: value})


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_connecting"):
        Limits(max_connecting=0)
