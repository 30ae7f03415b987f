"""How an error is told: its lines on standard error, without a traceback."""

from __future__ import annotations

import sys

from lbrun.errors import ConfigError, LbrunError


def report_error(error: LbrunError) -> None:
    """Tell the user, on standard error, without a traceback."""
    problems = problems_of(error)
    if len(problems) == 1:
        text = f"lbrun: {problems[0]}\n"
    else:
        text = f"lbrun: {len(problems)} problems\n" + "".join(f"  {problem}\n" for problem in problems)
    sys.stderr.write(text)
    sys.stderr.flush()


def problems_of(error: LbrunError) -> tuple[str, ...]:
    """The error as a list of lines; most errors have one."""
    return error.problems if isinstance(error, ConfigError) else (str(error) or "interrupted",)
