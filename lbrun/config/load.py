"""From a composed configuration (plain dicts and lists) to checked settings, with every problem at once."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lbrun.config.base import BASE_DIR
from lbrun.config.checks import CHECKS
from lbrun.config.problems import Problem, from_pydantic
from lbrun.config.schema import RunSettings
from lbrun.errors import ConfigError


def load_settings(
    raw: Mapping[str, Any], *, base_dir: Path | None = None, environ: Mapping[str, str] | None = None
) -> RunSettings:
    """The settings of a run.

    raw: the resolved configuration. base_dir: where relative paths start, the current folder by default.
    environ: where named variables are looked for, the process's by default.

    Raises ConfigError with a line for each problem. Checks between keys are made even when other keys are
    wrong by themselves: the wrong ones are put to their defaults for that, and what is said of them is
    said once.
    """
    context = {BASE_DIR: base_dir or Path.cwd()}
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    settings: RunSettings | None
    try:
        settings = RunSettings.model_validate(raw, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [from_pydantic(detail) for detail in details]
        settings = _without(raw, [detail["loc"] for detail in details], context)
    wrong = {key for found in problems for key in found.keys}
    if settings is not None:
        for check in CHECKS:
            problems += [p for p in check(settings, environ) if not _touches(p.keys, wrong)]
    if problems or settings is None:
        raise ConfigError(list(dict.fromkeys(map(str, problems))))
    return settings


def config_hash(settings: RunSettings) -> str:
    """Equal for two jobs that would do the same: how a sweep knows which of its jobs are finished."""
    text = json.dumps(settings.model_dump(mode="json", by_alias=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without(
    raw: Mapping[str, Any], places: Sequence[tuple[int | str, ...]], context: Mapping[str, Any]
) -> RunSettings | None:
    """The settings with what is wrong left out; None where even that does not make a configuration."""
    pruned = copy.deepcopy(dict(raw))
    for place in places:
        _drop(pruned, [part for part in place if part != "[key]"])
    try:
        return RunSettings.model_validate(pruned, context=context)
    except ValidationError:
        return None


def _drop(node: Any, place: Sequence[int | str]) -> None:
    # Lists lose the whole list: an element less would make other elements wrong (weights, for one).
    for part, following in zip(place, [*place[1:], None], strict=True):
        if not isinstance(node, dict) or part not in node:
            return
        if following is None or not isinstance(node[part], dict):
            del node[part]
            return
        node = node[part]


def _touches(keys: Sequence[str], wrong: set[str]) -> bool:
    # A wrong element or sub-key taints what holds it, and the other way round.
    def related(a: str, b: str) -> bool:
        return a == b or a.startswith((b + ".", b + "[")) or b.startswith((a + ".", a + "["))

    return any(related(key, other) for key in keys for other in wrong)
