"""The whole configuration of a run, as everything below the command line sees it.

`RunSettings` is what the keys say, and its properties are what follows from them (a null that means "by the
backend", "by the scenario", "by the rules"). `lbrun.config.load.load_settings` makes one, checked across
sections; constructing it directly checks each key by itself only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from lbrun.config.base import Section, problem
from lbrun.config.client import ClientSettings, ReportSettings
from lbrun.config.dataset import DatasetSettings
from lbrun.config.model import LatencyLimits, ModelSettings
from lbrun.config.scenario import ScenarioSettings, TrialSettings
from lbrun.config.servers import ServersSettings
from lbrun.config.strategy import StrategySettings

OFFLINE_MAX_IN_FLIGHT = 256
"""What servers.max_in_flight=auto means offline: enough to keep a large batch full, and no flood."""

_NO_TRIAL = TrialSettings(min_duration_s=None)

_T = TypeVar("_T")
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def _check_package(value: str) -> str:
    if not _PACKAGE.fullmatch(value):
        raise problem(
            f"{value!r} is not the name of a Python package", "write 'allowed_packages=[lbrun,mine]'"
        )
    return value


def _first(own: _T | None, other: _T | None) -> _T | None:
    return other if own is None else own


@dataclass(frozen=True, slots=True)
class LoadgenValues:
    """What LoadGen is told for a test; None leaves MLPerf's own value. A user.conf wins over all of it."""

    target_qps: float | None
    min_duration_s: float | None
    max_duration_s: float | None
    min_query_count: int | None
    max_query_count: int | None
    ttft_limit_ms: int | None
    tpot_limit_ms: int | None
    latency_limit_ms: int | None
    percentile: float | None
    coalesce_queries: bool | None
    qsl_seed: int | None
    sample_seed: int | None
    schedule_seed: int | None


class RunSettings(Section):
    """One LoadGen test over one pool."""

    model: ModelSettings
    dataset: DatasetSettings = Field(default_factory=DatasetSettings)
    servers: ServersSettings = Field(default_factory=ServersSettings)
    scenario: ScenarioSettings
    strategy: StrategySettings = Field(default_factory=StrategySettings)
    mode: Literal["performance", "accuracy"] = Field(
        default="performance", description="measure speed, or log each answer of the whole data set"
    )
    rules: Literal["mlperf", "trial"] | None = Field(
        default=None,
        description="mlperf: MLPerf's durations and counts; trial: those of scenario.trial; "
        "null: trial for embedded servers, else mlperf",
    )
    allowed_packages: tuple[Annotated[str, AfterValidator(_check_package)], ...] = Field(
        default=("lbrun",), description="packages that strategy._target_ may come from"
    )
    client: ClientSettings = Field(default_factory=ClientSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)

    @property
    def trial(self) -> bool:
        """Whether the values of scenario.trial stand in for MLPerf's."""
        if self.rules is None:
            return self.servers.embedded is not None
        return self.rules == "trial"

    @property
    def streaming(self) -> bool:
        """Whether answers are streamed: in Server scenarios, where the first token's time counts."""
        if self.scenario.stream is None:
            return self.scenario.loadgen == "Server"
        return self.scenario.stream

    @property
    def served_model(self) -> str:
        """The model's name in requests."""
        return self.servers.served_model or self.model.hf_id

    @property
    def late_join(self) -> bool:
        """Whether servers that were not ready at the start may join."""
        return self.trial if self.servers.late_join is None else self.servers.late_join

    @property
    def max_in_flight(self) -> int | None:
        """Requests in flight at each server at most; None is unlimited."""
        limit = self.servers.max_in_flight
        if limit == "auto":
            return OFFLINE_MAX_IN_FLIGHT if self.scenario.loadgen == "Offline" else None
        return limit

    @property
    def loadgen_model_name(self) -> str:
        """The model's name in LoadGen's configuration files."""
        if self.scenario.name == "interactive" and self.model.mlperf_name_interactive:
            return self.model.mlperf_name_interactive
        return self.model.mlperf_name

    @property
    def effective_sampling(self) -> dict[str, Any]:
        """The sampling keys that are sent, for the run's mode."""
        sampling = self.model.sampling.values()
        if self.mode == "accuracy":
            sampling |= self.model.sampling_accuracy.values()
        return sampling

    @property
    def loadgen_values(self) -> LoadgenValues:
        """What LoadGen is told: the scenario's keys, then the trial's, then the model's own limits."""
        scenario = self.scenario
        trial = scenario.trial if self.trial else _NO_TRIAL
        limits = self.model.limits.get(scenario.name, LatencyLimits())

        return LoadgenValues(
            target_qps=_first(scenario.target_qps, trial.target_qps),
            min_duration_s=_first(scenario.min_duration_s, trial.min_duration_s),
            max_duration_s=_first(scenario.max_duration_s, trial.max_duration_s),
            min_query_count=_first(scenario.min_query_count, trial.min_query_count),
            max_query_count=_first(scenario.max_query_count, trial.max_query_count),
            ttft_limit_ms=_first(scenario.ttft_limit_ms, limits.ttft_limit_ms),
            tpot_limit_ms=_first(scenario.tpot_limit_ms, limits.tpot_limit_ms),
            latency_limit_ms=_first(scenario.latency_limit_ms, limits.latency_limit_ms),
            percentile=scenario.percentile,
            coalesce_queries=scenario.coalesce_queries,
            qsl_seed=scenario.qsl_seed,
            sample_seed=scenario.sample_seed,
            schedule_seed=scenario.schedule_seed,
        )
