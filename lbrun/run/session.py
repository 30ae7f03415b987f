"""The test itself, inside its own process: data, readiness, LoadGen, dispatcher, records.

The event loop has the main thread; LoadGen's blocking call has a thread of its own. LoadGen cannot be
told to stop, so a test that is broken off or interrupted resolves every sample and leaves LoadGen's thread
behind: the process ends under it (see `lbrun.run.child`).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from lbrun import build
from lbrun.balance import Pool, Transition
from lbrun.balance.identity import disagreements
from lbrun.balance.model_watch import ModelChange
from lbrun.config import RunSettings
from lbrun.dispatch.dispatcher import Dispatcher
from lbrun.errors import ConfigError, Interrupted
from lbrun.loadgen.test import LoadGenPort, LoadGenTest
from lbrun.redaction import Redactor
from lbrun.results.events import EventLog
from lbrun.results.outputs import OutputLog
from lbrun.results.records import Recorder
from lbrun.run.channel import Channel
from lbrun.run.delays import ClientWatch, DelayHistogram
from lbrun.run.ledger import Ledger
from lbrun.run.outcome import models_of, outcome_of, progress_of, unbalanced
from lbrun.run.vocabulary import check_vocabulary
from lbrun.run.wall_clock import WallClockWatch

log = logging.getLogger("lbrun.run")

_T = TypeVar("_T")

PROGRESS_INTERVAL_S = 0.25
_FIRST_ANSWER_TIMEOUT_S = 60.0
_LAST_LOOK_TIMEOUT_S = 10.0
_SWITCH_INTERVAL_S = 0.0005
"""LoadGen's thread waits at most so long for the interpreter when a query falls due (the default is 5 ms)."""


class Session:
    """One test, from settings to outcome. `run` returns the outcome, a plain dict for the parent."""

    def __init__(
        self,
        settings: RunSettings,
        urls: list[str],
        run_dir: Path,
        base_dir: Path,
        channel: Channel,
        ledger: Ledger | None,
        redactor: Redactor,
    ) -> None:
        self._settings, self._urls, self._run_dir, self._base_dir = settings, urls, run_dir, base_dir
        self._channel, self._ledger, self._redactor = channel, ledger, redactor
        self._draining = asyncio.Event()
        self._broken = asyncio.Event()
        self._test_done = asyncio.Event()
        self._warnings: list[str] = []
        self._test_error: str | None = None
        self._wall_clock = WallClockWatch()
        self._dispatcher: Dispatcher | None = None
        self._n_samples = 0
        self._left_out: tuple[str, ...] = ()
        self.loadgen_running = False

    async def run(self) -> dict[str, Any]:
        """Everything, in order. Raises LbrunError for what the user or the pool did wrong before the test."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._on_message)
        self._on_message()
        try:
            return await self._run(loop)
        finally:
            loop.remove_reader(self._channel.fileno())

    async def _run(self, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        settings = self._settings
        self._phase("reading the data")
        prepared = build.prepare_samples(settings)
        test = LoadGenTest(build.loadgen_settings(settings, len(prepared.bodies)), self._run_dir / "mlperf")
        self._warnings += [
            *test.notes,
            *build.notes(settings, prepared.request_format),
            *build.secret_notes(self._redactor),
        ]
        for warning in self._warnings:
            self._note(warning)
        self._n_samples = len(prepared.bodies)
        self._left_out = build.left_out(prepared.request_format)
        if test.uses_first_tokens and not settings.streaming:
            raise ConfigError(
                f"scenario.stream: LoadGen wants the time of {settings.model.name}'s first tokens in the "
                f"{settings.scenario.name} scenario, which only a stream tells; leave it at null"
            )
        start_ns = time.monotonic_ns()
        redact = self._redactor.redact
        events = EventLog(self._run_dir, start_ns, redact=redact)
        parts = build.make_parts(settings, self._urls, prepared, self._worker_broken, self._redactor)
        parts.pool.on_transition.append(lambda transition: self._on_transition(events, transition))
        self._phase(f"waiting for {len(self._urls)} server{'s' * (len(self._urls) != 1)}")
        try:
            models = await self._unless_interrupted(
                parts.wait_ready(
                    lambda server, word: self._note(f"{self._urls[server]} is not ready yet: {word}")
                )
            )
            spec = build.dataset_spec(settings, prepared.request_format.name)
            await loop.run_in_executor(None, check_vocabulary, spec, self._urls, models)
            self._warnings += await self._unless_interrupted(parts.try_servers(_FIRST_ANSWER_TIMEOUT_S))
        except BaseException:
            await parts.close(worker_started=False)
            events.close()
            raise
        recorder = Recorder(self._run_dir, self._urls, start_ns, redact=redact)
        outputs = None
        if settings.report.record_outputs:
            outputs = OutputLog(self._run_dir, token_ids=settings.model.payload == "token_ids", redact=redact)
        to_loadgen, first_to_loadgen, watch = DelayHistogram(), DelayHistogram(), ClientWatch()
        dispatcher = Dispatcher(
            pool=parts.pool,
            worker=parts.worker,
            port=LoadGenPort(needs_first_tokens=test.uses_first_tokens),
            records=recorder,
            policy=build.retry_policy(settings),
            costs=prepared.costs,
            on_broken=self._on_broken,
            outputs=outputs,
            delays=to_loadgen,
            ledger=self._ledger,
            first_token_delays=first_to_loadgen,
        )
        self._dispatcher = dispatcher
        dispatcher.start()
        for difference in disagreements(models, self._urls):
            self._note(difference)
        monitor = parts.start_monitor(models, lambda change: self._model_changed(events, change))
        monitor.add_done_callback(lambda task: _monitor_ended(task, dispatcher))
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        total = test.expected_samples()
        self._phase("running", total=total)
        progress = asyncio.ensure_future(self._report_progress(dispatcher, parts, total))
        began_ns = time.monotonic_ns()
        watch.start()
        parts.watch_worker_loops()
        self._wall_clock = WallClockWatch()
        self._start_loadgen(test, dispatcher, loop)
        interrupted = await self._until_over(dispatcher)
        duration_s = (time.monotonic_ns() - began_ns) / 1e9
        progress.cancel()
        loops = parts.worker_loops()
        client = {
            **watch.stop(loops),
            "first_token_to_loadgen_ms": first_to_loadgen.summary_ms(),
            "last_byte_to_loadgen_ms": to_loadgen.summary_ms(),
        }
        dispatcher.stop()
        over = interrupted or self._broken.is_set()
        unread = [] if over else await parts.last_look(_LAST_LOOK_TIMEOUT_S)
        await parts.close()
        self._channel.send(progress_of(dispatcher, parts.pool, total), must=True)
        self._phase("writing the records")
        await loop.run_in_executor(None, recorder.close)
        events.close()
        if outputs is not None:
            outputs.close()
        trouble = [e for e in (recorder.error, events.error, outputs and outputs.error) if e]
        workers = parts.worker_reports()
        if workers:
            client["cpu_s"] += sum(report.cpu_s for report in workers)
            client["cores_used"] = client["cpu_s"] / max(duration_s, 1e-9)
        client["workers"] = len(loops)
        self._warnings += parts.unasked_answers()
        died = parts.workers_died()
        if died:
            self._warnings.append(
                f"{died} worker process{'es' * (died != 1)} died and had to be replaced; see lbrun.log"
            )
        problems = self._problems(dispatcher, parts.pool, trouble)
        return {
            **outcome_of(dispatcher, parts.pool, problems),
            "models": models_of(parts.models, self._urls, unread, start_ns),
            "warnings": self._warnings,
            "interrupted": interrupted,
            "duration_s": duration_s,
            "loadgen_ended": not self.loadgen_running,
            "dataset_samples": self._n_samples,
            "user_conf": test.user_values,
            "left_out": self._left_out,
            "client": client,
            "limits_ms": test.latency_limits_ms(),
        }

    # ---- waiting

    def _start_loadgen(
        self, test: LoadGenTest, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop
    ) -> None:
        def body() -> None:
            try:
                test.run(dispatcher.issue)
            except BaseException as error:
                log.exception("LoadGen's test broke")
                self._test_error = f"LoadGen's test broke: {error}"
            finally:
                self.loadgen_running = False
                loop.call_soon_threadsafe(self._test_done.set)

        self.loadgen_running = True
        threading.Thread(target=body, name="loadgen", daemon=True).start()

    async def _until_over(self, dispatcher: Dispatcher) -> bool:
        """Until LoadGen is done, the run is broken off, or an interrupt is drained; whether the latter."""
        await self._first(self._test_done, self._broken, self._draining)
        if self._test_done.is_set() or self._broken.is_set():
            if self._broken.is_set():
                # a fast LoadGen ends by itself once its samples are resolved; its logs are worth a moment
                await self._first(self._test_done, timeout_s=1.0)
            return False
        self._phase("interrupted: waiting for the requests in flight")
        dispatcher.hold()
        deadline = time.monotonic() + self._settings.client.drain_s
        # looked at, not waited for: it is a few seconds at the end of a run, and costs the run nothing
        while dispatcher.in_flight and time.monotonic() < deadline and not self._channel.closed:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        dispatcher.fail_open("interrupted while it was in flight")
        await self._first(self._test_done, timeout_s=0.5)
        return True

    @staticmethod
    async def _first(*events: asyncio.Event, timeout_s: float | None = None) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _unless_interrupted(self, work: Awaitable[_T]) -> _T:
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._draining.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise Interrupted("interrupted before the test began")

    def _worker_broken(self, reason: str) -> None:
        if self._dispatcher is not None:
            self._dispatcher.break_off(reason)

    def _on_broken(self, reason: str) -> None:
        self._broken.set()
        # at once: should the process die on its way out, this is the reason that it had
        self._channel.send({"type": "broken", "reason": reason}, must=True)

    # ---- the parent

    def _on_message(self) -> None:
        for message in self._channel.receive():
            if message.get("type") == "drain":
                self._draining.set()
        if self._channel.closed:
            # the parent is gone: nobody waits for this run, but what it measured is kept
            self._draining.set()
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _phase(self, text: str, **more: object) -> None:
        log.info("%s", text)
        self._channel.send({"type": "phase", "text": text, **more})

    def _note(self, text: str) -> None:
        self._channel.send({"type": "note", "level": "warning", "text": text})

    def _on_transition(self, events: EventLog, transition: Transition) -> None:
        url = self._urls[transition.server]
        before, after = transition.old.value, transition.new.value
        log.warning("%s: %s -> %s (%s)", url, before, after, transition.reason)
        events.write("state", server=url, reason=transition.reason, **{"from": before, "to": after})
        self._channel.send(
            {"type": "server", "url": url, "from": before, "to": after, "reason": transition.reason}
        )

    def _model_changed(self, events: EventLog, change: ModelChange) -> None:
        url = self._urls[change.server]
        log.warning("%s serves something else: %s", url, change.what)
        events.write("model_changed", server=url, reason=change.what)
        self._note(f"{url} serves something else than at the start: it {change.what}")

    async def _report_progress(self, dispatcher: Dispatcher, parts: build.Parts, total: int) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            self._wall_clock.look()
            if self._wall_clock.makes_loadgen_wait:
                dispatcher.break_off(self._wall_clock.describe())
            self._channel.send(progress_of(dispatcher, parts.pool, total))

    def _problems(self, dispatcher: Dispatcher, pool: Pool, trouble: list[str]) -> list[str]:
        """What makes the test worth nothing, whatever its figures say."""
        problems = [self._test_error] if self._test_error else []
        if dispatcher.broken and dispatcher.broken != "interrupted":
            problems.append(dispatcher.broken)
        self._wall_clock.look()
        set_clock = self._wall_clock.describe()
        if set_clock and self._wall_clock.makes_figures_worthless:
            if set_clock not in problems:
                problems.append(set_clock)
        elif set_clock:
            self._warnings.append(set_clock)
        return [*problems, *unbalanced(dispatcher.counts, pool), *trouble]


def _monitor_ended(task: asyncio.Task[None], dispatcher: Dispatcher) -> None:
    """Without its monitor the pool cannot take servers back, so a monitor that breaks, breaks the run."""
    if not task.cancelled() and task.exception() is not None:
        dispatcher.break_off(f"the watch over the servers broke: {task.exception()!r}")


def run_session(
    settings: RunSettings,
    urls: list[str],
    run_dir: Path,
    base_dir: Path,
    channel: Channel,
    ledger: Ledger | None,
    report: Callable[[dict[str, Any]], None],
    redactor: Redactor,
) -> bool:
    """Run a session on a fresh event loop. report gets the outcome. redactor: of the run's secrets.

    Returns whether LoadGen's thread is still in its call.
    """
    import uvloop

    async def body() -> bool:
        session = Session(settings, urls, run_dir, base_dir, channel, ledger, redactor)
        outcome = await session.run()
        report(outcome)
        return session.loadgen_running

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(body())
