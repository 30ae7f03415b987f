"""The flags of the command line. Everything else on it is an override, ``key=value``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lbrun.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Arguments:
    """A parsed command line.

    shows: the flags of a command that only shows something, as Hydra takes them; empty for a run.
    """

    overrides: tuple[str, ...]
    multirun: bool = False
    config_dir: Path | None = None
    shows: tuple[str, ...] = ()
    help: bool = False
    version: bool = False

    def for_hydra(self) -> list[str]:
        """The same as Hydra wants it: flags first."""
        flags = list(self.shows)
        if self.multirun:
            flags.append("--multirun")
        if self.config_dir is not None:
            flags += ["--config-dir", str(self.config_dir)]
        return [*flags, *self.overrides]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}; see python -m lbrun --help")


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the command line, flags and overrides in any order. Raises ConfigError."""
    parser = _Parser(prog="lbrun", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir", type=Path)
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=info)
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    found = parser.parse_intermixed_args(list(argv))

    shows: list[str] = []
    if found.cfg:
        shows += ["--cfg", found.cfg]
        shows += ["--package", found.package] if found.package else []
        shows += ["--resolve"] if found.resolve else []
    elif found.package or found.resolve:
        raise ConfigError("command line: --package and --resolve go with --cfg; write --cfg job")
    if found.info:
        shows += ["--info", found.info]
    if found.shell_completion:
        shows.append("--shell-completion")
    commands = [bool(found.cfg), bool(found.info), found.shell_completion, found.multirun]
    if sum(commands) > 1:
        raise ConfigError("command line: choose one of --cfg, --info, --shell-completion and -m")
    if found.config_dir is not None and not found.config_dir.is_dir():
        raise ConfigError(
            f"--config-dir: there is no folder {found.config_dir}; give one with your own groups"
        )
    return Arguments(
        overrides=tuple(found.overrides),
        multirun=found.multirun,
        config_dir=found.config_dir.resolve() if found.config_dir is not None else None,
        shows=tuple(shows),
        help=found.help,
        version=found.version,
    )
