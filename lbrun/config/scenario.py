"""The section ``scenario``: what LoadGen is told. null means MLPerf's own value, from its mlperf.conf."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lbrun.config.base import FilePath, Integer, Number, Section
from lbrun.config.model import ScenarioName


class TrialSettings(Section):
    """Values that stand in for nulls of ``scenario`` under rules=trial, so that a trial ends soon."""

    target_qps: Number | None = Field(
        default=None, gt=0, le=10_000_000, description="queries per second to offer"
    )
    min_duration_s: Number | None = Field(
        default=0, ge=0, le=604_800, description="the test lasts at least so long"
    )
    max_duration_s: Number | None = Field(
        default=None, gt=0, le=604_800, description="and at most so long; null: no limit"
    )
    min_query_count: Integer | None = Field(
        default=None, ge=1, description="queries at least (offline: samples)"
    )
    max_query_count: Integer | None = Field(default=None, ge=1, description="queries at most; null: no limit")


class ScenarioSettings(Section):
    """LoadGen's scenario and the numbers of the test."""

    name: ScenarioName = Field(description="offline, server or interactive")
    loadgen: Literal["Offline", "Server"] = Field(description="LoadGen's own scenario")
    target_qps: Number | None = Field(
        default=None, gt=0, le=10_000_000, description="queries per second to offer; offline: what to expect"
    )
    min_duration_s: Number | None = Field(
        default=None, ge=0, le=604_800, description="the test lasts at least so long"
    )
    max_duration_s: Number | None = Field(default=None, gt=0, le=604_800, description="and at most so long")
    min_query_count: Integer | None = Field(
        default=None, ge=1, description="queries at least (offline: samples)"
    )
    max_query_count: Integer | None = Field(default=None, ge=1, description="queries at most")
    ttft_limit_ms: Integer | None = Field(
        default=None, ge=1, le=86_400_000, description="time to first token, at the percentile"
    )
    tpot_limit_ms: Integer | None = Field(
        default=None, ge=1, le=86_400_000, description="time per output token, at the percentile"
    )
    latency_limit_ms: Integer | None = Field(
        default=None, ge=1, le=86_400_000, description="whole answer, at the percentile"
    )
    percentile: Number | None = Field(default=None, gt=0, lt=1, description="of the limits above: 0.99")
    stream: bool | None = Field(default=None, description="ask for streamed answers; null: except in offline")
    first_byte_timeout_s: Number | None = Field(
        default=None, gt=0, le=604_800, description="an answer must begin within this time; null: no limit"
    )
    coalesce_queries: bool | None = Field(
        default=None, description="LoadGen may hand over several due queries at once"
    )
    qsl_seed: Integer | None = Field(default=None, ge=0, lt=2**64, description="LoadGen's qsl_rng_seed")
    sample_seed: Integer | None = Field(
        default=None, ge=0, lt=2**64, description="LoadGen's sample_index_rng_seed"
    )
    schedule_seed: Integer | None = Field(
        default=None, ge=0, lt=2**64, description="LoadGen's schedule_rng_seed"
    )
    user_conf: FilePath | None = Field(
        default=None, description="your own user.conf; its keys win over those of this section"
    )
    audit_conf: FilePath | None = Field(default=None, description="the audit.config of a compliance test")
    trial: TrialSettings = Field(default_factory=TrialSettings)
