"""``python -m lbrun.embedded --port 8000 --backend vllm`` serves one simulated server by hand."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple, NoReturn

from lbrun.embedded.binding import bind
from lbrun.embedded.faults import Fault, parse_fault
from lbrun.embedded.settings import ServerSettings
from lbrun.errors import EXIT_FAILED, EXIT_USER_ERROR, ConfigError
from lbrun.lifeline import die_with_parent

_PROGRAM = "python -m lbrun.embedded"
_TYPES = {"str": str, "int": int, "float": float, "int | None": int, "str | None": str}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; see --help\n")


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Serve a simulated vLLM or SGLang server on 127.0.0.1.",
        epilog=(
            "The answers are made up, and a function of prompt and seed; the protocol is real. "
            "Faults can also be switched while it runs: "
            'curl -X POST localhost:8000/__faults__ -d \'{"faults": ["status_500*0.3"]}\''
        ),
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port on 127.0.0.1; 0: any free one (default: 8000)"
    )
    for f in fields(ServerSettings):
        if f.name == "faults":
            continue
        flag, meaning = "--" + f.name.replace("_", "-"), f.metadata["help"]
        if f.default is not None:
            meaning += f" (default: {f.default})"
        if isinstance(f.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=f.default, help=meaning)
        else:
            parser.add_argument(flag, type=_TYPES[str(f.type)], default=f.default, help=meaning)
    parser.add_argument(
        "--fault",
        dest="faults",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND[=VALUE][@START_S][+DURATION_S][*SHARE]",
        help="a fault to have, e.g. status_500@5+10*0.3; may be given several times",
    )
    pool = parser.add_argument_group("for the pool that starts servers")
    pool.add_argument("--fd", type=int, help="serve on this bound socket instead of --port")
    pool.add_argument("--parent-pid", type=int, help="end with this process, and with standard input")
    return parser


class Options(NamedTuple):
    """What the command line asks for."""

    settings: ServerSettings
    port: int
    fd: int | None
    parent_pid: int | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read a command line; ends the process with one line and status 2 where it is wrong."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    port, fd, parent_pid = options.pop("port"), options.pop("fd"), options.pop("parent_pid")
    options["faults"] = tuple(options["faults"])
    try:
        settings = ServerSettings(**options)
    except ConfigError as error:
        problems = (problem.partition(":") for problem in error.problems)
        parser.error("; ".join(f"--{name.replace('_', '-')}:{what}" for name, _, what in problems))
    if not 0 <= port <= 65535:
        parser.error(f"--port: {port} is no port; write 0 to 65535")
    return Options(settings, port, fd, parent_pid)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end. Returns the exit status."""
    options = parse(arguments)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)

    from lbrun.embedded.server import serve  # slow to load: only once the arguments are good

    try:
        bound = bind(options.port) if options.fd is None else socket.socket(fileno=options.fd)
    except OSError as error:
        sys.stderr.write(f"{_PROGRAM}: port {options.port}: {os.strerror(error.errno or 0)}\n")
        return EXIT_FAILED
    if options.fd is None:
        print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    serve(options.settings, bound, watch_stdin=options.parent_pid is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
