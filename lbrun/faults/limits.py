"""Runs a command within limits: ``python -m lbrun.faults.limits NAME=N ... -- COMMAND ...``.

NAME is a limit of setrlimit(2), e.g. NOFILE or FSIZE; both the soft and the hard one are set.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence


def wrapper(**limits: int) -> Sequence[str]:
    """The command that runs another one within these limits."""
    settings = [f"{name}={value}" for name, value in limits.items()]
    return (sys.executable, "-P", "-m", "lbrun.faults.limits", *settings, "--")


def main() -> None:
    """Set the limits, and become the command."""
    at = sys.argv.index("--")
    for setting in sys.argv[1:at]:
        name, _, value = setting.partition("=")
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(value), int(value)))
    command = sys.argv[at + 1 :]
    os.execvp(command[0], command)  # noqa: S606 - our own command, no shell


if __name__ == "__main__":
    main()
