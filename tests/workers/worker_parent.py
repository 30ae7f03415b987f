"""A program that has worker processes: ``python worker_parent.py {here,fork,spawn} {serve,hang} URL``.

It writes one JSON object: the workers' process ids, after three attempts at the server were made (serve), or
were handed over (hang), which then goes on for ever. fork, spawn: the workers' parent is a process that
multiprocessing has started.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys

import uvloop

from lbrun.attempt import AttemptFailure, AttemptResult
from lbrun.datasets.api import Sample
from lbrun.formats import FormatOptions, make_format
from lbrun.transport import Limits, Timeouts, make_endpoint
from lbrun.workers import ProcessWorkers, SharedBodies, WorkerSetup

N_ATTEMPTS = 3


class _Sink:
    def __init__(self) -> None:
        self.failures: list[str] = []
        self.n_ended = 0
        self.all_ended = asyncio.Event()

    def first_token(self, attempt_id: int, at_ns: int, payload: bytes | None) -> None:
        pass

    def completed(self, attempt_id: int, result: AttemptResult) -> None:
        self.n_ended += 1
        if self.n_ended == N_ATTEMPTS:
            self.all_ended.set()

    def failed(self, attempt_id: int, failure: AttemptFailure) -> None:
        self.failures.append(failure.message)
        self.all_ended.set()


async def work(what: str, url: str) -> dict[str, object]:
    options = FormatOptions(model="tiny", backend="vllm")
    request_format = make_format("completions", options)
    bodies = SharedBodies.store(
        request_format.encode(Sample(i, token_ids=b"[%d]" % i)) for i in range(N_ATTEMPTS)
    )
    endpoints = (make_endpoint(url, request_format.path),)
    workers = ProcessWorkers(
        2,
        WorkerSetup(endpoints, "completions", options, Timeouts(), Limits()),
        bodies,
        on_broken=sys.exit,
    )
    sink = _Sink()
    workers.start(sink)
    for attempt_id in range(N_ATTEMPTS):
        workers.submit(attempt_id, attempt_id, 0)
    workers.flush()
    told: dict[str, object] = {"parent": os.getpid(), "workers": workers.pids}
    if what == "hang":
        print(json.dumps(told), flush=True)
    await sink.all_ended.wait()
    await workers.close()
    return {**told, "completed": sink.n_ended, "failures": sink.failures}


def run(what: str, url: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(work(what, url))), flush=True)


if __name__ == "__main__":
    how, what, url = sys.argv[1:]
    if how == "here":
        run(what, url)
    else:
        process = multiprocessing.get_context(how).Process(target=run, args=(what, url), daemon=True)
        process.start()
        process.join()
        sys.exit(process.exitcode)
