"""LoadGen's user.conf: written from the configuration, merged with the user's own file.

LoadGen looks a key up as ``model.scenario.key``, ``*.scenario.key``, ``model.*.key``, ``*.*.key``, first in
user.conf, over the mlperf.conf that its package carries. A line must read ``key = value`` with both spaces:
LoadGen passes over ``key=value`` without a word, and over keys that it does not know or takes from its own
mlperf.conf only; so they are refused here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbrun.errors import ConfigError

_LINE = re.compile(r"^(?P<model>[^\s.=]+)\.(?P<scenario>[^\s.=]+)\.(?P<key>[^\s.=]+) = (?P<value>[^\s=#]+)$")
_SPACES = "write `model.Scenario.key = value`, with a space on both sides of the ="
_SCENARIOS = ("*", "Offline", "Server", "SingleStream", "MultiStream")
_KEYS = (
    "target_qps", "target_latency", "target_latency_percentile", "ttft_latency", "tpot_latency",
    "min_duration", "max_duration", "min_query_count", "max_query_count", "samples_per_query",
    "performance_sample_count_override", "accuracy_sample_count_override", "coalesce_queries",
    "max_async_queries", "use_token_latencies", "infer_token_latencies", "token_latency_scaling_factor",
    "sample_concatenate_permutation", "accuracy_log_rng_seed", "accuracy_log_sampling_target", "mode",
    "print_timestamps", "performance_issue_unique", "performance_issue_same", "performance_issue_same_index",
)  # fmt: skip
_SEEDS = {
    "qsl_rng_seed": "scenario.qsl_seed",
    "sample_index_rng_seed": "scenario.sample_seed",
    "schedule_rng_seed": "scenario.schedule_seed",
}


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One setting of a conf file; model and scenario may be ``*``."""

    model: str
    scenario: str
    key: str
    value: str

    def applies_to(self, model: str, scenario: str) -> bool:
        """Whether LoadGen would use it for this test."""
        return self.model in ("*", model) and self.scenario in ("*", scenario)

    def __str__(self) -> str:
        return f"{self.model}.{self.scenario}.{self.key} = {self.value}"


def read_user_conf(path: Path) -> list[ConfLine]:
    """The settings of a user's file. Raises ConfigError with every line that LoadGen would pass over."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"scenario.user_conf: cannot read {path}: {error}") from None
    lines, problems = [], []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        match = _LINE.match(" ".join(line.split()))
        setting = ConfLine(**match.groupdict()) if match else None
        instead = _SPACES if setting is None else _instead(setting)
        if instead:
            problems.append(
                f"scenario.user_conf: {path}, line {number}: LoadGen would ignore {line!r}; {instead}"
            )
        elif setting is not None:
            lines.append(setting)
    if problems:
        raise ConfigError(problems)
    return lines


def _instead(line: ConfLine) -> str:
    """What to write in place of a well-formed line that LoadGen would pass over; "" for a good one."""
    if line.scenario not in _SCENARIOS:
        return f"its scenarios are {', '.join(_SCENARIOS)}"
    if line.key in _SEEDS:
        return f"it takes seeds from its own mlperf.conf only; write {_SEEDS[line.key]}={line.value} instead"
    if line.key not in _KEYS:
        near = difflib.get_close_matches(line.key, _KEYS, n=1)
        return f"it has no such key; did you mean {near[0]}?" if near else "it has no such key"
    return ""


def merge_conf(
    model: str, scenario: str, values: Mapping[str, int | float], user: list[ConfLine]
) -> tuple[str, list[str]]:
    """The text of a test's user.conf, and what to tell of it: each configured value that the user's file
    overrides, or that the whole file is for other tests.

    values: LoadGen's keys in LoadGen's units (durations and latencies in ms, percentiles in per cent).
    """
    theirs = {line.key: line for line in user if line.applies_to(model, scenario)}
    out = ["# written by lbrun from its configuration; LoadGen applies it over its own mlperf.conf"]
    told = []
    for key, value in values.items():
        text = format(value, ".10g") if isinstance(value, float) else str(value)
        if key in theirs:
            if theirs[key].value != text:
                told.append(f"user.conf sets {key} to {theirs[key].value}, in place of {text}")
            continue
        out.append(str(ConfLine(model, scenario, key, text)))
    if user and not theirs:
        told.append(f"scenario.user_conf: no line of it applies to {model}.{scenario}")
    if user:
        out.append("# from the user's own file")
        # the most specific form, since mlperf.conf's model-specific lines would win over a `*`
        out += [
            str(ConfLine(model, scenario, line.key, line.value) if line.applies_to(model, scenario) else line)
            for line in user
        ]
    return "\n".join(out) + "\n", told
