"""Workers and the process that starts them: they are nobody's copy, and do not outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workers_bench import Script, Server, bench, hang, is_gone, run, serve_well, until

_PROGRAM = Path(__file__).with_name("worker_parent.py")


@dataclass
class Program:
    """The program at work on a server."""

    process: subprocess.Popen[bytes]
    server: Server
    out: Path

    async def says(self) -> dict[str, Any]:
        """Wait for what it writes."""
        await until(lambda: self.out.read_text().endswith("\n"), "the program writes a line")
        said: dict[str, Any] = json.loads(self.out.read_text())
        return said


@asynccontextmanager
async def program(how: str, what: str, script: Script, folder: Path) -> AsyncIterator[Program]:
    """Start the program; it is ended with the test."""
    server = Server(script)
    await server.start()
    out = folder / "said.json"
    with out.open("wb") as file:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, str(_PROGRAM), how, what, server.url],
            stdout=file,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    try:
        yield Program(process, server, out)
    finally:
        process.kill()
        process.wait()
        await server.stop()


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_can_be_started_by_a_process_that_multiprocessing_has_started(
    how: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with program(how, "serve", serve_well, tmp_path) as p:
            said = await p.says()
            assert said["parent"] != p.process.pid
            assert (said["completed"], said["failures"]) == (3, [])
            assert sorted(p.server.samples) == [0, 1, 2]
            await until(lambda: p.process.poll() == 0, "the program ends")
            assert all(map(is_gone, said["workers"]))

    run(main())


def test_no_worker_outlives_a_killed_parent_not_even_one_that_is_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        async with program("here", "hang", hang, tmp_path) as p:
            workers = (await p.says())["workers"]
            await until(lambda: len(p.server.requests) == 3, "the workers are at work")
            os.kill(workers[0], signal.SIGSTOP)
            p.process.kill()
            await until(lambda: all(map(is_gone, workers)), "the workers end")
            await until(lambda: p.server.n_open == 0, "their connections are closed")

    run(main())


def test_a_worker_that_has_not_started_up_yet_does_not_outlive_its_parent_either(tmp_path: Path) -> None:
    async def main() -> None:
        async with program("here", "hang", hang, tmp_path) as p:
            workers = (await p.says())["workers"]  # they have only just been started
            p.process.kill()
            await until(lambda: all(map(is_gone, workers)), "the workers end")

    run(main())


def test_a_worker_is_a_fresh_interpreter_with_nothing_of_its_parent_but_what_it_needs() -> None:
    async def main() -> None:
        async with bench() as b:
            await b.serve(0, 1)
            ours, *theirs = (sockets_of(pid) for pid in (os.getpid(), *b.workers.pids))
            assert len(ours | theirs[0] | theirs[1]) == len(ours) + len(theirs[0]) + len(theirs[1])
            for process in b.processes():
                assert process.cmdline()[1:4] == ["-P", "-m", "lbrun.workers.process"]

    run(main())


def sockets_of(pid: int) -> set[str]:
    """The sockets that a process has open, by the names that the kernel has for them."""
    links = (str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink())
    return {link for link in links if link.startswith("socket:")}


def test_a_worker_finds_its_modules_where_its_parent_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also those of the folder that an interactive interpreter was started in."""
    monkeypatch.chdir(_PROGRAM.parents[2])
    monkeypatch.setattr(sys, "path", ["", *(p for p in sys.path if p and Path(p) != Path.cwd())])

    async def main() -> None:
        async with bench(n=1) as b:
            await b.serve(0)

    run(main())


def test_nothing_of_the_setup_is_on_a_workers_command_line() -> None:
    """All users of a machine can read those, and the setup may have an API key in it."""

    async def main() -> None:
        async with bench(n=1) as b:
            (process,) = b.processes()
            assert all(argument.isdigit() for argument in process.cmdline()[4:])

    run(main())
