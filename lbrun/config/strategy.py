"""The section ``strategy``: which server gets the next attempt."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lbrun.config.base import Integer, Section, problem

BUILT_IN = (
    "round_robin",
    "random",
    "weighted",
    "least_outstanding",
    "least_tokens",
    "power_of_two",
    "peak_ewma",
)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def _check_target(value: str) -> str:
    if not _DOTTED.fullmatch(value):
        raise problem(f"{value!r} is not the name of a class", "write it as package.module.Class")
    return value


class StrategySettings(Section):
    """How a server is picked."""

    name: str = Field(
        default="round_robin",
        min_length=1,
        description="a built-in strategy, or how your own is called in results",
    )
    seed: Integer = Field(
        default=0, ge=0, lt=2**63, description="seed of the strategies that draw random numbers"
    )
    target: Annotated[str, AfterValidator(_check_target)] | None = Field(
        default=None,
        alias="_target_",
        description="your own strategy, package.module.Class, from one of allowed_packages; null: built in",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="arguments for the constructor of your own strategy"
    )
