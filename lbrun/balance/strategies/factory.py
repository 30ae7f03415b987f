"""From a strategy's name, or the path of a class of the user's own, to a strategy."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lbrun.balance.strategies.chance import PowerOfTwo, RandomChoice
from lbrun.balance.strategies.least import LeastOutstanding, LeastTokens
from lbrun.balance.strategies.peak_ewma import PeakEwma
from lbrun.balance.strategies.round_robin import RoundRobin
from lbrun.balance.strategies.weighted import Weighted
from lbrun.balance.strategy import BaseStrategy
from lbrun.errors import ConfigError

STRATEGIES: Mapping[str, type[BaseStrategy]] = {
    cls.name: cls
    for cls in (RoundRobin, RandomChoice, Weighted, LeastOutstanding, LeastTokens, PowerOfTwo, PeakEwma)
}


def make_strategy(
    name: str,
    *,
    seed: int = 0,
    target: str | None = None,
    params: Mapping[str, Any] | None = None,
    allowed_packages: Sequence[str] = ("lbrun",),
) -> BaseStrategy:
    """The strategy of that name, or the one at `target`, a class of the user's own.

    seed: for strategies that draw lots. target: ``package.module.Class``, imported only from one of the
    allowed packages, since importing runs code. params: further arguments of the class. Weights belong to
    the pool, not to a strategy.

    Raises ConfigError, which says what to write instead.
    """
    cls = _find(target, allowed_packages) if target is not None else STRATEGIES.get(name)
    if cls is None:
        known = ", ".join(STRATEGIES)
        raise ConfigError(f"strategy.name: there is no strategy {name!r}; write one of {known}")
    accepted = inspect.signature(cls).parameters
    arguments = dict(params or {})
    if "seed" in accepted:
        arguments.setdefault("seed", seed)
    try:
        return cls(**arguments)
    except BaseException as error:
        # a class of the user's own may fail in any way; whatever it is, it is theirs to read in one line
        what = f"refuses {_shown(params)}" if params else "cannot be made without parameters"
        said = str(error) if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {error}"
        takes = ", ".join(accepted) or "no parameters"
        raise ConfigError(f"strategy.params: {cls.__name__} {what}: {said}; it takes {takes}") from error


def _find(target: str, allowed_packages: Sequence[str]) -> type[BaseStrategy]:
    key = "strategy._target_"
    module_name, _, class_name = target.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{key}: {target!r} is not the path of a class; write package.module.Class")
    package = module_name.partition(".")[0]
    if not any(f"{module_name}.".startswith(f"{allowed}.") for allowed in allowed_packages):
        raise ConfigError(
            f"{key}: {target!r} is not in an allowed package ({', '.join(allowed_packages) or 'none'}); "
            f"if you trust it, write 'allowed_packages=[{','.join([*allowed_packages, package])}]'"
        )
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        # importing a user's module may fail in any way; whatever it is, it is theirs to read in one line
        raise ConfigError(
            f"{key}: {module_name!r} cannot be imported: {type(error).__name__}: {error}; "
            f"it must be installed, or on PYTHONPATH"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigError(f"{key}: {module_name!r} has no {class_name!r}; write package.module.Class")
    if (
        not (inspect.isclass(found) and issubclass(found, BaseStrategy))
        or found.pick is BaseStrategy.pick
        or not _takes_tokens(found.pick)
    ):
        raise ConfigError(
            f"{key}: {target!r} is not a strategy; "
            f"write a class that derives from lbrun.balance.BaseStrategy and has pick(self, tokens) -> int"
        )
    return found


def _takes_tokens(pick: Callable[..., Any]) -> bool:
    try:
        inspect.signature(pick).bind(None, 1)
    except TypeError:
        return False
    return True


def _shown(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in params.items())
