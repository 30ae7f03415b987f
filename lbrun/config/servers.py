"""The section ``servers``: the pool, how it is reached, and when a server counts as failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from lbrun.config.base import PROBLEM, FilePath, Integer, Number, OneLine, Section, problem
from lbrun.config.model import Backend
from lbrun.config.urls import check_list, check_url
from lbrun.embedded.faults import parse_fault

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH = re.compile(r"/[!-~]*")


def _check_variable(value: str) -> str:
    # The value may be the secret itself, so that it is not repeated.
    if not _VARIABLE.fullmatch(value):
        raise problem(
            "this is not the name of an environment variable",
            "put the secret into a variable and write its name: servers.api_key_env=API_KEY",
        )
    return value


def _check_header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise problem("this is not the name of a header", "use letters, digits and dashes")
    return value


def _check_header_value(value: str) -> str:
    if any(not (c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff") for c in value):
        raise problem("a header's value may not hold control characters", "write one line of text")
    return value


def _check_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise problem(f"{value!r} is not a path", "begin with a slash: /health")
    return value


def _check_limit(value: Any) -> int | Literal["auto"] | None:
    if value is None or value == "auto":
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise problem(
            f"{value!r} is no limit", "write a number from 1 to 1000000, auto, or null for unlimited"
        )
    return value


def _check_fault(value: str) -> str:
    try:
        parse_fault(value)
    except ValueError as error:
        raise PydanticCustomError(PROBLEM, "{message}", {"message": str(error)}) from None
    return value


VariableName = Annotated[str, AfterValidator(_check_variable)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
HeaderValue = Annotated[str, AfterValidator(_check_header_value)]
ServerUrl = Annotated[str, PlainValidator(check_url)]
FaultText = Annotated[str, AfterValidator(_check_fault)]


class HealthSettings(Section):
    """When a server is suspected, ejected and taken back."""

    probe_interval_s: Number = Field(
        default=1, gt=0, le=600, description="between two probes of a server that is out"
    )
    probe_timeout_s: Number = Field(
        default=2, gt=0, le=600, description="a probe unanswered for so long has failed"
    )
    failures_in_a_row: Integer = Field(default=3, ge=1, le=1_000, description="so many eject a server")
    failure_share: Number = Field(
        default=0.5, gt=0, le=1, description="this share of failures ejects a server"
    )
    window_s: Number = Field(default=10, gt=0, le=3_600, description="the share is taken over this time")
    window_min: Integer = Field(
        default=20, ge=1, le=100_000, description="attempts needed before the share counts"
    )
    backoff_base_s: Number = Field(
        default=1, gt=0, le=3_600, description="out of rotation after the first ejection"
    )
    backoff_cap_s: Number = Field(default=30, gt=0, le=86_400, description="out of rotation at most")
    stall_s: Number = Field(
        default=4,
        gt=0,
        le=3_600,
        description="requests in flight and not a byte for so long: the server is probed",
    )
    ramp_s: Number = Field(
        default=5, ge=0, le=3_600, description="a server that is back gets its full share after this"
    )


class RetrySettings(Section):
    """How failed attempts are made again; the budget delays them where requests in flight are unlimited."""

    budget_share: Number = Field(
        default=0.2, ge=0, le=1, description="retries per attempt that the budget allows"
    )
    budget_per_s: Number = Field(
        default=10, gt=0, le=100_000, description="retries that are always allowed, per second"
    )
    wait_base_ms: Number = Field(
        default=50, ge=0, le=60_000, description="before the second attempt at one same server"
    )
    wait_cap_ms: Number = Field(default=2_000, ge=0, le=600_000, description="the wait doubles up to this")
    put_off_s: Number = Field(
        default=300, gt=0, le=86_400, description="a sample that gets nothing but 429s for so long fails"
    )


class EmbeddedSettings(Section):
    """Simulated servers that lbrun starts itself on this machine."""

    count: Integer = Field(default=3, ge=1, le=64, description="how many")
    speeds: tuple[Annotated[Number, Field(gt=0, le=1_000)], ...] = Field(
        default=(), description="the servers' speeds, 0.5 is half as fast; 1 for those not named"
    )
    slots: Integer = Field(
        default=32, ge=1, le=100_000, description="requests that a server works on at a time"
    )
    ttft_base_ms: Number = Field(
        default=20, ge=0, le=600_000, description="to the first token, for an empty prompt"
    )
    ttft_per_token_us: Number = Field(
        default=25, ge=0, le=1_000_000, description="more for each token of the prompt"
    )
    tpot_ms: Number = Field(default=2, ge=0, le=60_000, description="for each further token")
    jitter: Number = Field(
        default=0, ge=0, lt=1, description="share by which times vary, the same way in each run"
    )
    output_tokens_mean: Integer = Field(
        default=73, ge=1, le=100_000, description="mean length of an answer in tokens"
    )
    max_model_len: Integer = Field(
        default=131_072, ge=16, description="longest prompt and answer together in tokens"
    )
    seed: Integer = Field(
        default=0, ge=0, lt=2**63, description="answers are the same for the same prompt and seed"
    )


class ServersSettings(Section):
    """The pool of servers."""

    urls: Annotated[tuple[ServerUrl, ...], BeforeValidator(check_list)] = Field(
        default=(), description="the servers' base URLs; where given, no embedded server is started"
    )
    backend: Backend = Field(
        default="vllm", description="what the servers run; openai: any OpenAI-compatible server"
    )
    served_model: OneLine | None = Field(
        default=None,
        min_length=1,
        description="the name under which servers list the model; null: model.hf_id",
    )
    weights: tuple[Annotated[Number, Field(gt=0, le=1_000_000)], ...] | None = Field(
        default=None, description="each server's share of the load, for strategy=weighted; null: all the same"
    )
    max_in_flight: Annotated[int | Literal["auto"] | None, PlainValidator(_check_limit)] = Field(
        default="auto",
        description="requests in flight at each server; null: unlimited; auto: 256 offline, else unlimited",
    )
    max_retries_per_server: Integer = Field(
        default=3, ge=1, le=100, description="one sample is tried at most so often at each server"
    )
    ready_timeout_s: Number = Field(
        default=600, gt=0, le=86_400, description="wait so long for servers to become ready"
    )
    min_ready: Integer = Field(
        default=1, ge=1, description="servers that must be ready for the test to start"
    )
    settle_s: Number = Field(
        default=5, ge=0, le=3_600, description="once min_ready are ready, wait so long for the others"
    )
    late_join: bool | None = Field(
        default=None, description="servers that become ready later join in; null: not with rules=mlperf"
    )
    recovery: Literal["probe", "none"] = Field(
        default="probe", description="probe: ejected servers are probed and taken back; none: they stay out"
    )
    grace_s: Number = Field(
        default=30, ge=0, le=86_400, description="all servers down for longer than this fails the run"
    )
    on_bad_request: Literal["stop", "continue"] = Field(
        default="stop",
        description="a request that every server refuses: stop the run, or fail that sample only",
    )
    api_key_env: VariableName | None = Field(
        default=None, description="environment variable that holds the API key, sent as Authorization: Bearer"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="further request headers by name; nothing secret"
    )
    headers_env: dict[HeaderName, VariableName] = Field(
        default_factory=dict, description="secret request headers: name to environment variable"
    )
    ca_file: FilePath | None = Field(
        default=None, description="certificates (PEM) to trust for https; null: those of the system"
    )
    health_path: Annotated[str, AfterValidator(_check_path)] | None = Field(
        default=None, description="the path that says whether a server is ready; null: by the backend"
    )
    health: HealthSettings = Field(default_factory=HealthSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    embedded: EmbeddedSettings | None = Field(
        default=None, description="simulated servers on this machine; null: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _urls_are_the_pool(cls, data: Any) -> Any:
        # `servers=embedded` is the default, so URLs from the command line meet it all the time.
        if isinstance(data, Mapping) and data.get("urls") and data.get("embedded") is not None:
            return {**data, "embedded": None}
        return data

    @property
    def n_servers(self) -> int:
        """How many servers the pool has."""
        return len(self.urls) or (self.embedded.count if self.embedded else 0)

    faults: tuple[FaultText, ...] = Field(
        default=(), description="faults that embedded servers show, as docs/embedded.md writes them"
    )
