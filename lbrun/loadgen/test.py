"""One LoadGen test: settings, the sample library, the system under test, and the way back.

One process runs one test: LoadGen reads its built-in mlperf.conf only for the first test of a process, aborts
the process when a callback raises, and has no call to stop it.
"""

from __future__ import annotations

import array
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlperf_loadgen as lg

from lbrun.dispatch.ports import Finished, FirstToken
from lbrun.errors import ConfigError, RunFailed
from lbrun.loadgen.conf import effective, merge_conf, read_audit_conf, read_user_conf

log = logging.getLogger("lbrun.loadgen")

_SCENARIOS = {"Offline": lg.TestScenario.Offline, "Server": lg.TestScenario.Server}
_MODES = {"performance": lg.TestMode.PerformanceOnly, "accuracy": lg.TestMode.AccuracyOnly}
_USER_CONF = 1  # FromConfig's conf_type for user.conf


@dataclass(frozen=True, slots=True)
class LoadGenSettings:
    """A test, in LoadGen's words.

    model: the name in mlperf.conf, e.g. ``llama3_1-8b-interactive``. scenario: Offline or Server. mode:
    performance or accuracy. values: keys of user.conf, in its units. seeds: of LoadGen's random numbers, by
    its names, where they are not to be the round's own. samples: of the dataset, all of which are in memory.
    """

    model: str
    scenario: str
    mode: str
    samples: int
    values: Mapping[str, int | float]
    seeds: Mapping[str, int] = field(default_factory=dict)
    user_conf: Path | None = None
    audit_conf: Path | None = None


class LoadGenPort:
    """Completions on their way to LoadGen; called from the dispatcher's loop only. Never raises.

    needs_first_tokens: as in `lbrun.dispatch.ports.CompletionPort`.
    """

    def __init__(self, *, needs_first_tokens: bool = False) -> None:
        self.needs_first_tokens = needs_first_tokens

    def first_tokens(self, batch: Sequence[FirstToken]) -> None:
        """Report first tokens, all in one call. One that LoadGen refuses is reported without its bytes."""
        _hand_over(lg.FirstTokenComplete, [(query_id, payload, 0) for query_id, payload in batch])

    def complete(self, batch: Sequence[Finished]) -> Sequence[int]:
        """Complete samples, all in one call. A failed one has no bytes and no tokens, which LoadGen logs."""
        return _hand_over(lg.QuerySamplesComplete, batch)


def _hand_over(
    report: Callable[[list[lg.QuerySampleResponse]], None], batch: Sequence[tuple[int, bytes | None, int]]
) -> Sequence[int]:
    """Report a batch in one call, or one by one where it is refused as a whole.

    Returns the query ids of those that were refused with their bytes and count, and reported without.
    """
    try:
        _report(report, batch)
    except Exception:
        log.exception("LoadGen refused a batch of %d", len(batch))
    else:
        return ()
    refused = []
    for row in batch:
        try:
            _report(report, [row])
        except Exception as error:
            log.error("LoadGen refused the response to query %d: %s", row[0], error)
            refused.append(row[0])
            _report(report, [(row[0], None, 0)])
    return refused


def _report(
    report: Callable[[list[lg.QuerySampleResponse]], None], batch: Sequence[tuple[int, bytes | None, int]]
) -> None:
    buffer, responses = _responses(batch)
    report(responses)
    del buffer  # LoadGen copies within the call


def _responses(
    rows: Sequence[tuple[int, bytes | None, int]],
) -> tuple[array.array[int], list[lg.QuerySampleResponse]]:
    """LoadGen's responses for a batch, and the buffer that must live until they are handed over."""
    buffer = array.array("B", b"".join(payload for _, payload, _ in rows if payload))
    address = buffer.buffer_info()[0]
    response = lg.QuerySampleResponse
    out = []
    for query_id, payload, n_tokens in rows:
        if payload:
            out.append(response(query_id, address, len(payload), n_tokens))
            address += len(payload)
        else:
            out.append(response(query_id, 0, 0, n_tokens))
    return buffer, out


class LoadGenTest:
    """Prepares the test's files and runs it. `run` blocks its thread until LoadGen is done."""

    def __init__(self, settings: LoadGenSettings, folder: Path) -> None:
        """folder: where LoadGen writes its logs; it is made. Raises ConfigError for an unusable user.conf."""
        self.settings = settings
        self.notes: list[str] = []
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        user = read_user_conf(settings.user_conf) if settings.user_conf else []
        self.user_values = effective(user, settings.model, settings.scenario)
        if settings.scenario == "Server" and "target_qps" not in {*settings.values, *self.user_values}:
            raise ConfigError(
                f"scenario.user_conf: {settings.user_conf} has no target_qps for {settings.model} in the "
                f"Server scenario; add `{settings.model}.Server.target_qps = 20`, or write "
                "scenario.target_qps=20 (queries per second)"
            )
        text, self.notes = merge_conf(settings.model, settings.scenario, settings.values, user)
        for key, seed in settings.seeds.items():
            text += f"# set directly, since LoadGen takes it from no user.conf: {key} = {seed}\n"
        self._user_conf = folder / "user.conf"
        self._user_conf.write_text(text, encoding="utf-8")
        self._audit_conf = folder / "audit.config"
        self._audit_conf.unlink(missing_ok=True)  # of a run in this folder that was cut
        if settings.audit_conf is not None:
            audit = read_audit_conf(settings.audit_conf, settings.scenario, settings.mode)
            self._audit_conf.write_text(audit, encoding="utf-8")
        self.test_settings = self._make_settings()

    def _make_settings(self) -> lg.TestSettings:
        settings = self.settings
        out = lg.TestSettings()
        out.scenario = _SCENARIOS[settings.scenario]
        out.mode = _MODES[settings.mode]
        if out.FromConfig(str(self._user_conf), settings.model, settings.scenario, _USER_CONF) != 0:
            raise RunFailed(f"LoadGen cannot read {self._user_conf}")
        for key, seed in settings.seeds.items():
            setattr(out, key, seed)
        return out

    @property
    def uses_first_tokens(self) -> bool:
        """Whether LoadGen wants to hear of each sample's first token."""
        return self.settings.scenario == "Server" and bool(self.test_settings.use_token_latencies)

    def latency_limits_ms(self) -> dict[str, float]:
        """LoadGen's limits that are in force, by name; empty in Offline and accuracy runs."""
        s = self.test_settings
        if self.settings.scenario != "Server" or self.settings.mode != "performance":
            return {}
        if s.use_token_latencies:
            return {"TTFT": s.ttft_latency / 1e6, "TPOT": s.tpot_latency / 1e6}
        return {"latency": s.server_target_latency_ns / 1e6}

    def expected_samples(self) -> int:
        """How many samples LoadGen will issue, as far as it can be known; for progress only."""
        s = self.test_settings
        if self.settings.mode == "accuracy":
            return int(s.accuracy_sample_count_override or self.settings.samples)
        if self.settings.scenario == "Offline":
            least = max(s.min_query_count, int(1.1 * s.offline_expected_qps * s.min_duration_ms / 1000))
        else:
            least = max(s.min_query_count, int(s.server_target_qps * s.min_duration_ms / 1000))
        return int(min(least, s.max_query_count) if s.max_query_count else least)

    def run(self, issue: Callable[[list[int], list[int]], None]) -> None:
        """Run the test. issue(query_ids, sample_indices) is called on this thread and must not block."""
        settings = self.settings

        def on_issue(samples: Sequence[lg.QuerySample]) -> None:
            # an exception here would end the process
            try:
                issue([s.id for s in samples], [s.index for s in samples])
            except BaseException:
                log.exception("%d samples could not be taken over", len(samples))
                port = LoadGenPort()
                if self.uses_first_tokens:
                    port.first_tokens([FirstToken(s.id, None) for s in samples])
                port.complete([Finished(s.id, None, 0) for s in samples])

        def on_load(indices: Sequence[int]) -> None:
            # bodies are encoded and resident before the test, so that no encoding falls into it
            log.info("LoadGen loads %d samples", len(indices))

        def on_unload(indices: Sequence[int]) -> None:
            log.info("LoadGen unloads %d samples", len(indices))

        log_output = lg.LogOutputSettings()
        log_output.outdir = str(self._folder)
        log_output.copy_summary_to_stdout = False
        log_settings = lg.LogSettings()
        log_settings.log_output = log_output
        log_settings.enable_trace = False
        sut = lg.ConstructSUT(on_issue, lambda: None)
        qsl = lg.ConstructQSL(settings.samples, settings.samples, on_load, on_unload)
        try:
            lg.StartTestWithLogSettings(sut, qsl, self.test_settings, log_settings, str(self._audit_conf))
        finally:
            lg.DestroyQSL(qsl)
            lg.DestroySUT(sut)
