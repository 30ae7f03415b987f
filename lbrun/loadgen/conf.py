"""LoadGen's user.conf and audit.config: written from the configuration, merged with the user's own files.

LoadGen applies the mlperf.conf that its package carries, then user.conf, then audit.config; in each file it
looks a key up as ``model.scenario.key``, ``*.scenario.key``, ``model.*.key``, ``*.*.key``, and of two equal
lines the later counts. What it cannot read it treats in three ways, none of which it tells at the time:

    ``key=value``, an unknown key, a seed     passed over
    ``6e5`` or ``0600`` for a whole number    read as 6, or as octal
    a value that is no number, or a comment   the whole file is dropped
    after a value

So files are read here first, and what LoadGen would not take as it is meant is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbrun.errors import ConfigError

_LINE = re.compile(r"^(?P<model>[^\s.=]+)\.(?P<scenario>[^\s.=]+)\.(?P<key>[^\s.=]+) = (?P<value>[^\s=#]+)$")
_WHOLE = re.compile(r"0|[1-9][0-9]*")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_UINT64_END = 2**64

NUMBERS = frozenset({"target_qps", "target_latency_percentile"})
WHOLE_NUMBERS = frozenset(
    {
        "coalesce_queries",
        "infer_token_latencies",
        "max_async_queries",
        "max_duration",
        "max_query_count",
        "min_duration",
        "min_query_count",
        "accuracy_sample_count_override",
        "performance_issue_same",
        "performance_issue_same_index",
        "performance_issue_unique",
        "performance_sample_count_override",
        "print_timestamps",
        "sample_concatenate_permutation",
        "target_latency",
        "token_latency_scaling_factor",
        "tpot_latency",
        "ttft_latency",
        "use_token_latencies",
    }
)
_KEYS = WHOLE_NUMBERS | NUMBERS
_AUDIT_ONLY = frozenset({"accuracy_log_rng_seed", "accuracy_log_sampling_target"})
_SEEDS = {
    "qsl_rng_seed": "scenario.qsl_seed",
    "sample_index_rng_seed": "scenario.sample_seed",
    "schedule_rng_seed": "scenario.schedule_seed",
}
_SPACES = "write `model.Scenario.key = value`, with a space on both sides of the ="
_SCENARIOS = ("*", "Offline", "Server", "SingleStream", "MultiStream")
_OTHERS = ("SingleStream", "MultiStream")
"""Scenarios that lbrun does not run; a user.conf may have lines for them, with other kinds of values."""
_MODES = {"1": "accuracy", "2": "performance"}


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One setting of a conf file; model and scenario may be ``*``. number: its line in the file, from 1."""

    model: str
    scenario: str
    key: str
    value: str
    number: int = 0

    def applies_to(self, model: str, scenario: str) -> bool:
        """Whether LoadGen would use it for this test."""
        return self.model in ("*", model) and self.scenario in ("*", scenario)

    def __str__(self) -> str:
        return f"{self.model}.{self.scenario}.{self.key} = {self.value}"


def read_user_conf(path: Path) -> list[ConfLine]:
    """The settings of a user's file. Raises ConfigError with every line that LoadGen would pass over, misread
    or fail at, and with those that are not for a user.conf to set.
    """
    lines, problems = _read_lines(path, "scenario.user_conf")
    for line in lines:
        at = f"scenario.user_conf: {path}, line {line.number}"
        if line.key == "mode":
            problems.append(
                f"{at}: the mode decides what is asked of the servers; write mode=accuracy instead"
            )
        elif line.key in _AUDIT_ONLY:
            problems.append(f"{at}: {line.key} belongs into the file that scenario.audit_conf names")
        elif instead := _instead(line):
            problems.append(f"{at}: LoadGen would ignore '{line}'; {instead}")
    if problems:
        raise ConfigError(problems)
    return lines


def _instead(line: ConfLine) -> str:
    """What to write in place of a well-formed line that LoadGen would pass over; "" for a good one."""
    if line.key in _SEEDS:
        return f"it takes seeds from its own mlperf.conf only; write {_SEEDS[line.key]}={line.value} instead"
    if line.key not in _KEYS and line.scenario not in _OTHERS:
        near = difflib.get_close_matches(line.key, sorted(_KEYS), n=1)
        return f"it has no such key; did you mean {near[0]}?" if near else "it has no such key"
    return ""


def effective(lines: Sequence[ConfLine], model: str, scenario: str) -> dict[str, str]:
    """The values that hold for a test, by key: of a key's lines the most specific, and the last of equals."""
    found: dict[str, str] = {}
    for place in (("*", "*"), (model, "*"), ("*", scenario), (model, scenario)):
        for line in lines:
            if (line.model, line.scenario) == place:
                found[line.key] = line.value
    return found


def merge_conf(
    model: str, scenario: str, values: Mapping[str, int | float], user: Sequence[ConfLine]
) -> tuple[str, list[str]]:
    """The text of a test's user.conf, and what to tell the user of it.

    values: LoadGen's keys in LoadGen's units (durations and latencies in ms, percentiles in per cent). The
    user's lines for this test win over them.
    """
    theirs = effective(user, model, scenario)
    out = ["# written by lbrun from its configuration; LoadGen applies it over its own mlperf.conf"]
    notes = []
    for key, value in values.items():
        text = format(value, ".10g") if isinstance(value, float) else str(value)
        if key in theirs:
            if theirs[key] != text:
                notes.append(f"user.conf sets {key} to {theirs[key]}, in place of {text}")
            continue
        out.append(str(ConfLine(model, scenario, key, text)))
    mine = [line for line in user if line.applies_to(model, scenario)]
    if mine:
        out.append("# from the user's own file")
        out += [str(line) for line in mine]
    elif user:
        notes.append(f"scenario.user_conf: no line of it applies to {model}.{scenario}")
    return "\n".join(out) + "\n", notes


def read_audit_conf(path: Path, scenario: str, mode: str) -> str:
    """The text of a compliance test's audit.config as LoadGen can read it: without comments after values.

    LoadGen looks its keys up for the model ``*``. What only a test's verification script reads
    (``test07_accuracy_threshold``) stays. Raises ConfigError for lines without effect, and where the file
    asks for another mode than the run has.
    """
    lines, problems = _read_lines(path, "scenario.audit_conf")
    for line in lines:
        at = f"scenario.audit_conf: {path}, line {line.number}"
        if line.model != "*":
            problems.append(f"{at}: LoadGen reads *.{line.scenario}.{line.key} only; write * for the model")
        elif line.key == "mode" and line.scenario in ("*", scenario) and _MODES.get(line.value) != mode:
            asked = _MODES.get(line.value)
            instead = f"write mode={asked}" if asked else "use a file that asks for 1 or 2"
            problems.append(f"{at}: it asks for mode {line.value}, and the run has mode={mode}; {instead}")
    if problems:
        raise ConfigError(problems)
    return "".join(f"{line}\n" for line in lines)


def _read_lines(path: Path, key: str) -> tuple[list[ConfLine], list[str]]:
    """The lines of a file that LoadGen reads as they are meant, and what is wrong with the others."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from None
    lines, problems = [], []
    for number, raw in enumerate(text.splitlines(), 1):
        content = raw.split("#", 1)[0].strip()
        if not content:
            continue
        at = f"{key}: {path}, line {number}"
        match = _LINE.match(" ".join(content.split()))
        if match is None:
            problems.append(f"{at}: LoadGen would ignore {content!r}; {_SPACES}")
            continue
        line = ConfLine(**match.groupdict(), number=number)
        if line.scenario not in _SCENARIOS:
            problems.append(
                f"{at}: LoadGen would ignore {content!r}; its scenarios are {', '.join(_SCENARIOS)}"
            )
        elif not _NUMBER.fullmatch(line.value):
            problems.append(f"{at}: {line.value!r} is not a number; write one in digits")
        elif line.key in WHOLE_NUMBERS and line.scenario not in _OTHERS and not _is_whole(line.value):
            problems.append(f"{at}: LoadGen would misread {line.value!r}; write a whole number in digits")
        else:
            lines.append(line)
    return lines, problems


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and int(text) < _UINT64_END
