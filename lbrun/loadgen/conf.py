"""LoadGen's user.conf: written from the configuration, merged with the user's own file.

LoadGen looks a key up as ``model.scenario.key``, ``*.scenario.key``, ``model.*.key``, ``*.*.key``, first in
user.conf, over the mlperf.conf that its package carries. A line must read ``key = value`` with both spaces:
LoadGen passes over ``key=value`` without a word, so it is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbrun.errors import ConfigError

_LINE = re.compile(r"^(?P<model>[^\s.=]+)\.(?P<scenario>[^\s.=]+)\.(?P<key>[^\s.=]+) = (?P<value>[^\s=#]+)$")


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
        if match is None:
            problems.append(
                f"scenario.user_conf: {path}, line {number}: LoadGen would ignore {line!r}; "
                "write `model.Scenario.key = value`, with a space on both sides of the ="
            )
        else:
            lines.append(ConfLine(**match.groupdict()))
    if problems:
        raise ConfigError(problems)
    return lines


def merge_conf(
    model: str, scenario: str, values: Mapping[str, int | float], user: list[ConfLine]
) -> tuple[str, list[str]]:
    """The text of a test's user.conf, and a line for each configured value that the user's file overrides.

    values: LoadGen's keys in LoadGen's units (durations and latencies in ms, percentiles in per cent).
    """
    theirs = {line.key: line for line in user if line.applies_to(model, scenario)}
    out = ["# written by lbrun from its configuration; LoadGen applies it over its own mlperf.conf"]
    overridden = []
    for key, value in values.items():
        text = format(value, ".10g") if isinstance(value, float) else str(value)
        if key in theirs:
            if theirs[key].value != text:
                overridden.append(f"user.conf sets {key} to {theirs[key].value}, in place of {text}")
            continue
        out.append(str(ConfLine(model, scenario, key, text)))
    if user:
        out.append("# from the user's own file")
        # the most specific form, since mlperf.conf's model-specific lines would win over a `*`
        out += [
            str(ConfLine(model, scenario, line.key, line.value) if line.applies_to(model, scenario) else line)
            for line in user
        ]
    return "\n".join(out) + "\n", overridden
