"""Statuses, Retry-After and what is quoted of a server's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.attempt import FailureKind
from lbrun.transport.refusal import quote, refusal_message, retry_after_s
from lbrun.transport.statuses import MOMENTARY, SET_UP, kind_of_status

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (b"0", 0.0),
        (b"5", 5.0),
        (b" 5 ", 5.0),
        (b"31", 30.0),
        (b"999999999", 30.0),
        (b"Thu, 01 Jan 2026 12:00:10 GMT", 10.0),
        (b"Thu, 01 Jan 2026 14:00:10 +0200", 10.0),
        (b"Thu, 01 Jan 2026 12:00:10", 10.0),
        (b"Thursday, 01-Jan-26 12:00:10 GMT", 10.0),
        (b"Fri, 02 Jan 2026 12:00:00 GMT", 30.0),
        (b"Thu, 01 Jan 2026 11:59:00 GMT", 0.0),
        (b"", None),
        (b"-5", None),
        (b"1.5", None),
        (b"1e9", None),
        (b"inf", None),
        (b"9" * 5000, None),
        (b"soon", None),
        (b"Thu, 99 Jan 2026 12:00:10 GMT", None),
        (b"\xff\xfe", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_junk_is_nothing(value: bytes, wait_s: float | None) -> None:
    assert retry_after_s(value, NOON) == wait_s


def test_no_retry_after_is_no_wish() -> None:
    assert retry_after_s(None) is None


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))
def test_any_retry_after_is_read_without_raising_and_within_bounds(value: bytes) -> None:
    wait_s = retry_after_s(value)
    assert wait_s is None or 0.0 <= wait_s <= 30.0


@given(st.binary(max_size=3000))
def test_quotes_are_one_short_printable_line(body: bytes) -> None:
    said = quote(body)
    assert len(said) <= 300
    assert said.isprintable()


def test_quotes_keep_text_of_other_scripts() -> None:
    assert quote("模型不存在\n über".encode()) == "模型不存在 über"


@given(st.integers(100, 999).filter(lambda status: status != 200))
def test_every_status_has_a_kind_and_a_message(status: int) -> None:
    assert kind_of_status(status) in (
        FailureKind.HTTP_429,
        FailureKind.HTTP_503,
        FailureKind.HTTP_5XX,
        FailureKind.HTTP_4XX,
        FailureKind.HTTP_MOMENT,
    )
    assert refusal_message(status, {}, b"").startswith(f"HTTP {status}")


def test_location_is_only_told_of_redirects() -> None:
    headers = {b"LOCATION": b"/elsewhere"}
    assert refusal_message(302, headers, b"").endswith("not followed to /elsewhere")
    assert "elsewhere" not in refusal_message(404, headers, b"")


@pytest.mark.parametrize("status", range(400, 452))
def test_a_client_error_has_the_meaning_of_the_table(status: int) -> None:
    kind = kind_of_status(status)
    if status == 429:
        assert kind is FailureKind.HTTP_429
    elif status in {408, 409, 423, 425}:
        assert status in MOMENTARY
        assert kind is FailureKind.HTTP_MOMENT
    else:
        assert kind is FailureKind.HTTP_4XX
    assert not MOMENTARY & SET_UP


@pytest.mark.parametrize("status", [101, 199, 201, 202, 204, 206, 301, 302, 304, 307, 308])
def test_a_status_that_is_no_answer_and_no_error_is_a_refusal(status: int) -> None:
    assert kind_of_status(status) is FailureKind.HTTP_4XX
