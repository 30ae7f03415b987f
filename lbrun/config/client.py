"""The sections ``client`` (how requests are carried out) and ``report`` (what is written)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from lbrun.config.base import Integer, Number, Section, problem


def _check_workers(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 256:
        raise problem(
            f"{value!r} is no number of workers",
            "write 0 (the test's own process), a number up to 256, or auto",
        )
    return value


class ClientSettings(Section):
    """Workers and their timeouts."""

    workers: Annotated[int | Literal["auto"], PlainValidator(_check_workers)] = Field(
        default="auto",
        description="worker processes; 0: attempts are carried out inside the test's own process; "
        "auto: 0 on fewer than 4 processors, else half as many, at most 8",
    )
    cpus: tuple[Annotated[Integer, Field(ge=0)], ...] = Field(
        default=(), description="processors to pin the worker processes to, in turn; empty: not pinned"
    )
    connect_timeout_s: Number = Field(default=5, gt=0, le=600, description="a new connection, TLS included")
    idle_timeout_s: Number = Field(
        default=60,
        gt=0,
        le=86_400,
        description="between two pieces of content of one answer, once it has begun",
    )
    total_timeout_s: Number | None = Field(
        default=None,
        gt=0,
        le=604_800,
        description="one attempt from start to end; null: 20 times what a full answer takes in this pool",
    )
    drain_s: Number = Field(
        default=5, ge=0, le=3_600, description="after Ctrl-C, wait so long for open requests"
    )
    max_answer_mib: Number = Field(
        default=64, gt=0, le=4_096, description="the largest answer that is accepted"
    )


class ReportSettings(Section):
    """What a run writes beside its result."""

    html: bool = Field(default=True, description="write report.html, with plots")
    record_outputs: bool = Field(
        default=False, description="keep the answers' texts or token ids with the records"
    )
