"""From overrides to plain, resolved configurations: one for a run, one for each job of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lbrun.cli.conf_dir import CONF_DIR
from lbrun.cli.hydra_code import foreign_code
from lbrun.errors import ConfigError

VERSION_BASE = "1.3"
CONFIG_NAME = "config"
_BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True, slots=True)
class Job:
    """One configuration. overrides: those that make it. output_dir: where hydra.run.dir would put it."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    output_dir: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command line asks for.

    sweep: whether there are several jobs, by -m or by an experiment. jobs: all of them; for a sweeper of the
    user's choice, which makes its jobs as it goes, only the first.
    """

    sweep: bool
    jobs: tuple[Job, ...]


def plan(overrides: Sequence[str], *, multirun: bool = False, config_dir: Path | None = None) -> Plan:
    """Compose every job. Raises what Hydra and OmegaConf raise (see `lbrun.cli.explain`), and ConfigError."""
    with _hydra():
        search = [_search_path(overrides, config_dir)] if config_dir is not None else []
        base = [*overrides, *search]
        if not multirun:
            cfg = _compose(base)
            if cfg.hydra.mode != RunMode.MULTIRUN:
                return Plan(sweep=False, jobs=(_job(cfg, overrides),))
        first = next(_combinations(base))
        cfg = _compose(first)
        params = OmegaConf.select(cfg, "hydra.sweeper.params") or {}
        if OmegaConf.select(cfg, "hydra.sweeper._target_") != _BASIC_SWEEPER:
            return Plan(sweep=True, jobs=(_job(cfg, first),))
        # As Hydra's own sweeper has it: the command line wins over the parameters of an experiment.
        combinations = _combinations([f"{key}={value}" for key, value in params.items()] + base)
        jobs = tuple(
            _job(
                _compose(chosen),
                [text for text in chosen if text not in search and not text.startswith("hydra.")],
            )
            for chosen in combinations
        )
        return Plan(sweep=True, jobs=jobs)


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration with everything resolved.

    Raises ConfigError for keys that a group leaves open (???) and for environment variables whose values
    would end up in the run's files.
    """
    open_keys = sorted(OmegaConf.missing_keys(cfg))
    if open_keys:
        raise ConfigError([f"{key}: it has no value yet; write {key}=..." for key in open_keys])
    raw = OmegaConf.to_container(cfg, resolve=False)
    headers = (raw.get("servers") or {}).get("headers") if isinstance(raw, dict) else None
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if isinstance(value, str) and "${" in value and "oc.env" in value:
            raise ConfigError(
                f"servers.headers.{name}: the variable's value would be written into the run's files; "
                f"write its name: +servers.headers_env.{name}=NAME"
            )
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


@contextmanager
def _hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(CONF_DIR), job_name="lbrun"):
        yield


def _compose(overrides: Sequence[str]) -> DictConfig:
    try:
        cfg = compose(config_name=CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        raise
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        # Some overrides of Hydra's own settings trip over its internals.
        raise ConfigError(
            f"configuration: Hydra cannot compose it: {error}; see python -m lbrun --help"
        ) from error
    if problems := foreign_code(OmegaConf.to_container(cfg.hydra, resolve=False)):
        raise ConfigError(problems)
    return cfg


def _job(cfg: DictConfig, overrides: Sequence[str]) -> Job:
    output_dir = Path(str(OmegaConf.select(cfg, "hydra.run.dir")))
    with open_dict(cfg):
        del cfg["hydra"]
    return Job(overrides=tuple(overrides), config=to_plain(cfg), output_dir=output_dir)


def _search_path(overrides: Sequence[str], config_dir: Path) -> str:
    if any(text.lstrip("+").startswith("hydra.searchpath") for text in overrides):
        raise ConfigError("hydra.searchpath: it is set by --config-dir already; leave one of them out")
    quoted = str(config_dir).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.searchpath=['file://{quoted}']"


def _combinations(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every choice from the overrides that name several values; later ones replace earlier ones."""
    loader = GlobalHydra.instance().config_loader()
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        choices[override.get_key_element().lstrip("+")] = _values(override)
    return (list(chosen) for chosen in itertools.product(*choices.values()))


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{key}: an interval has no end of values; write a list: {key}=1,2,4, or range(1,5)"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
