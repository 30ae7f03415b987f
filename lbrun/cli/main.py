"""The entry point of ``lbrun`` and ``python -m lbrun``.

The way of a command line:

1. flags are parsed, overrides are checked for syntax, unknown keys and secrets (`lbrun.cli.overrides`);
2. every job is composed and validated (`lbrun.cli.compose`, `lbrun.config`), so that a mistake costs no
   folder, and no half of a sweep;
3. Hydra makes the run's folder, or the sweep's, and calls `_job` for each job (`lbrun.cli.jobs`).

A mistake of the user's ends in one line, or in a list of them, and in exit status 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lbrun.cli.arguments import Arguments, parse_arguments
from lbrun.cli.conf_dir import CONF_DIR, check_own_groups, group_options
from lbrun.cli.mistakes import report_error
from lbrun.errors import EXIT_INTERRUPTED, EXIT_VALID, ConfigError, LbrunError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lbrun.cli.compose import Plan
    from lbrun.cli.jobs import SingleRun, Sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run lbrun and return its exit status (see `lbrun.errors`). argv: without the program's name."""
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if arguments.help or arguments.version:
            sys.stdout.write(_about(arguments))
            return EXIT_VALID
        return _dispatch(arguments)
    except LbrunError as error:
        report_error(error)
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("lbrun: interrupted\n")
        return EXIT_INTERRUPTED


def _about(arguments: Arguments) -> str:
    if arguments.version:
        from lbrun import __version__

        return f"lbrun {__version__}\n"
    from lbrun.cli.help import help_text

    return help_text(arguments.config_dir)


def _dispatch(arguments: Arguments) -> int:
    from lbrun.cli.explain import EXPLAINED, explain

    try:
        if arguments.shows:
            return _show(arguments)
        return _run(arguments)
    except EXPLAINED as error:
        raise explain(error) from error


def _show(arguments: Arguments) -> int:
    """Commands that Hydra carries out alone: --cfg, --info, --shell-completion."""
    if "--cfg" in arguments.shows:
        problems, _ = _check(arguments)
        if problems:
            raise ConfigError(problems)
    try:
        _hydra(arguments, lambda cfg: None)
    except ValueError as error:
        raise ConfigError(f"command line: {error}; see python -m lbrun --help") from error
    return EXIT_VALID


def _check(arguments: Arguments) -> tuple[list[str], list[str]]:
    from lbrun.cli.overrides import check_overrides

    groups = set(group_options())
    if arguments.config_dir is not None:
        check_own_groups(arguments.config_dir)
        groups |= set(group_options(arguments.config_dir))
    return check_overrides(arguments.overrides, multirun=arguments.multirun, groups=groups)


def _plan(arguments: Arguments) -> Plan:
    """Compose and validate every job. Raises ConfigError with all that is wrong.

    Where overrides are wrong by themselves, what the others make up is checked too, as far as it goes.
    """
    from lbrun.cli.compose import plan
    from lbrun.cli.explain import EXPLAINED, explain

    problems, good = _check(arguments)
    try:
        planned = plan(good, multirun=arguments.multirun, config_dir=arguments.config_dir)
        _validate(planned, good)
    except ConfigError as error:
        problems += error.problems
    except EXPLAINED as error:
        problems += explain(error).problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return planned


def _run(arguments: Arguments) -> int:
    from lbrun.cli.jobs import SingleRun, Sweep

    planned = _plan(arguments)
    if not planned.sweep:
        if (planned.jobs[0].output_dir / "result.json").exists():
            raise ConfigError(
                f"hydra.run.dir: {planned.jobs[0].output_dir} holds a run already; name another folder"
            )
        run = SingleRun(arguments.config_dir)
        _hydra(arguments, lambda cfg: _job(cfg, run))
        return run.status
    sweep = Sweep([job.overrides for job in planned.jobs], arguments.config_dir)
    try:
        _hydra(arguments, lambda cfg: _job(cfg, sweep))
    finally:
        sweep.show()
    return sweep.status


def _validate(planned: Plan, overrides: Sequence[str]) -> None:
    """Raises ConfigError with the problems of all jobs; those that all of them have are told once.

    overrides: as given, with those of Hydra's own settings, which Hydra writes into the run's folder.
    """
    from lbrun.config import load_settings
    from lbrun.config.secrets import check_overrides_hold_no_secret

    found: dict[str, list[int]] = {}
    for number, job in enumerate(planned.jobs):
        try:
            check_overrides_hold_no_secret(load_settings(job.config).servers, overrides)
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(number)
    if not found:
        return
    everywhere = len(planned.jobs)
    problems = []
    for problem, numbers in found.items():
        if len(numbers) == everywhere:
            problems.append(problem)
        else:
            which = "; ".join(" ".join(planned.jobs[number].overrides) for number in numbers)
            problems.append(f"{problem} [with {which}]")
    raise ConfigError(problems)


def _job(cfg: DictConfig, carry_out: SingleRun | Sweep) -> int:
    """What Hydra calls in the folder of a run, or of each job of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from lbrun.cli.compose import to_plain
    from lbrun.cli.jobs import Sweep

    hydra = HydraConfig.get()
    run_dir, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    if isinstance(carry_out, Sweep):
        return carry_out(lambda: to_plain(cfg), run_dir, overrides, Path(hydra.sweep.dir), int(hydra.job.num))
    return carry_out(to_plain(cfg), run_dir, overrides)


def _hydra(arguments: Arguments, job: Callable[[DictConfig], int | None]) -> None:
    """Hand the command line to Hydra, which composes it and calls `job`."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from lbrun.cli.compose import CONFIG_NAME, VERSION_BASE

    begun = False

    def task(cfg: DictConfig) -> int | None:
        nonlocal begun
        begun = True
        return job(cfg)

    GlobalHydra.instance().clear()
    with _as_hydra_wants(arguments):
        try:
            hydra.main(version_base=VERSION_BASE, config_path=str(CONF_DIR), config_name=CONFIG_NAME)(task)()
        except OSError as error:
            # What fails before the first job is the making of folders; Hydra has an OSError of its own.
            if begun or isinstance(error, HydraException):
                raise
            where = f"{error.filename}: " if error.filename else ""
            key = "hydra.sweep.dir" if arguments.multirun else "hydra.run.dir"
            raise ConfigError(
                f"{key}: {where}{error.strerror or error}; name a folder that can be written"
            ) from error


@contextmanager
def _as_hydra_wants(arguments: Arguments) -> Iterator[None]:
    """Hydra reads sys.argv, and raises instead of printing only when this variable is set."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["lbrun", *arguments.for_hydra()]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
