"""The exceptions of lbrun.

    LbrunError
    ├── ConfigError       one or more keys of the configuration are wrong (exit status 2)
    ├── DatasetError      a data file cannot be used: names file, row and column (exit status 2)
    ├── ServerError       a server answered a control request with something unusable
    ├── RunFailed         the run started and broke (exit status 1)
    └── Interrupted       the user asked to stop (exit status 130)

A message says what is wrong, where, and what to write instead; the entry point prints it without a
traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_VALID = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INVALID = 3
EXIT_INTERRUPTED = 130


class LbrunError(Exception):
    """Anything that lbrun reports to its user by a message alone."""

    exit_status = EXIT_FAILED


class ConfigError(LbrunError):
    """One or more values of the configuration cannot be used.

    problems: one line each, of the form ``key: what is wrong; what to write instead``.
    """

    exit_status = EXIT_USER_ERROR

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DatasetError(LbrunError):
    """A data file cannot be used. Where they are known, file, row (from 0) and column are named."""

    exit_status = EXIT_USER_ERROR

    def __init__(
        self, message: str, *, path: object, row: int | None = None, column: str | None = None
    ) -> None:
        self.message, self.path, self.row, self.column = message, str(path), row, column
        where = self.path
        if row is not None:
            where += f", row {row}"
        if column is not None:
            where += f", column {column!r}"
        super().__init__(f"{where}: {message}")


class ServerError(LbrunError):
    """A server's answer to a control request (health, model list) is unusable."""

    def __init__(self, message: str, *, url: str, status: int | None = None) -> None:
        self.url, self.status = url, status
        super().__init__(f"{url}: {message}")


class RunFailed(LbrunError):
    """The run began and could not be carried through; what was written stays."""


class Interrupted(LbrunError):
    """The user asked to stop (SIGINT or SIGTERM)."""

    exit_status = EXIT_INTERRUPTED
