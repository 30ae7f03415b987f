"""The latency model, the slots and the engine, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbrun.embedded.engine import ClientGoneError, Engine, EngineDeadError
from lbrun.embedded.latency import LatencyModel, Pace, SlotQueue
from lbrun.embedded.metrics import ServerMetrics
from lbrun.embedded.settings import EmbeddedSettings


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        wait = self._selector.select

        def select(timeout=None):
            if timeout:
                self._now += timeout
            return wait(0)

        self._selector.select = select

    def time(self) -> float:
        return self._now


def run(main: Callable[[VirtualLoop], Awaitable[None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()


def engine(loop: VirtualLoop, slots: int = 1, **times: float) -> Engine:
    model = LatencyModel(**{"ttft_base_s": 1.0, "ttft_per_token_s": 0.1, "tpot_s": 0.5, **times})
    return Engine(loop, model, slots, ServerMetrics("vllm"))


def test_ttft_grows_with_the_prompt_and_every_further_token_takes_tpot():
    pace = LatencyModel(ttft_base_s=0.02, ttft_per_token_s=0.001, tpot_s=0.002).pace(100)
    assert pace.due_s(10.0, 0) == pytest.approx(10.12)
    assert pace.due_s(10.0, 50) == pytest.approx(10.22)


def test_speed_divides_all_times_and_slowness_multiplies_them():
    settings = EmbeddedSettings(count=2, speeds=(1.0, 0.5))
    normal = LatencyModel.of(settings.server(0)).pace(780)
    half = LatencyModel.of(settings.server(1)).pace(780)
    assert half.ttft_s == pytest.approx(2 * normal.ttft_s)
    assert half.tpot_s == pytest.approx(2 * normal.tpot_s)
    assert LatencyModel.of(settings.server(0)).pace(780, slowness=10).tpot_s == pytest.approx(
        10 * normal.tpot_s
    )


def test_a_request_of_the_llama_benchmark_takes_150_to_250_ms_by_default():
    pace = LatencyModel.of(EmbeddedSettings().server(0)).pace(780)
    assert 0.150 <= pace.due_s(0, 72) <= 0.250


@given(luck=st.floats(0, 1), jitter=st.floats(0, 0.99), n=st.integers(0, 10_000))
def test_jitter_stays_within_its_share(luck, jitter, n):
    plain = LatencyModel(0.1, 0.001, 0.01).pace(n)
    varied = LatencyModel(0.1, 0.001, 0.01, jitter).pace(n, luck)
    assert plain.ttft_s * (1 - jitter) * 0.999 <= varied.ttft_s <= plain.ttft_s * (1 + jitter) * 1.001
    assert varied.tpot_s / plain.tpot_s == pytest.approx(varied.ttft_s / plain.ttft_s)


@given(ttft=st.floats(0, 10), tpot=st.floats(1e-4, 1), token=st.integers(0, 1000))
def test_a_token_counts_as_due_from_the_time_it_is_due(ttft, tpot, token):
    pace = Pace(ttft, tpot)
    due = pace.due_s(0.0, token)
    assert pace.n_due(0.0, due) == token + 1
    assert pace.n_due(0.0, ttft - 1e-4) == 0


class SlotMachine(RuleBasedStateMachine):
    """Slots against a plain list: first come, first served, never more than there are."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: SlotQueue[int] = SlotQueue(3)
        self.running: set[int] = set()
        self.line: list[int] = []
        self.arrived: dict[int, float] = {}
        self.now = 0.0

    @rule(wait=st.floats(0, 5))
    def arrive(self, wait):
        self.now += wait
        item = len(self.arrived)
        self.arrived[item] = self.now
        free = len(self.running) < 3
        assert self.queue.arrive(item, self.now) == free
        self.running.add(item) if free else self.line.append(item)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), early=st.floats(0, 5))
    def finish(self, data, early):
        item = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(item)
        following = self.queue.leave(item, self.now - early)
        if not self.line:
            assert following is None
            return
        expected = self.line.pop(0)
        self.running.add(expected)
        assert following == (expected, max(self.arrived[expected], self.now - early))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up_in_line(self, data):
        item = data.draw(st.sampled_from(self.line))
        self.line.remove(item)
        assert self.queue.leave(item, self.now) is None

    @invariant()
    def agrees(self):
        assert self.queue.running == self.running
        assert self.queue.n_waiting == len(self.line)


TestSlots = SlotMachine.TestCase


def test_requests_queue_for_slots_in_order_and_start_where_the_last_one_ended():
    async def main(loop):
        e = engine(loop)
        done = []

        async def request(name, n_out):
            ticket = e.admit(n_prompt=10, n_out=n_out)
            await ticket.until(n_out - 1)
            e.release(ticket, "stop", streamed=False)
            done.append((name, round(ticket.start_s - 1000, 6), round(loop.time() - 1000, 3)))

        tasks = [asyncio.ensure_future(request(name, 3)) for name in "abc"]
        await asyncio.sleep(0.5)
        assert (e.n_running, e.n_waiting) == (1, 2)
        await asyncio.gather(*tasks)
        # each: 1 s + 10 x 0.1 s to the first token, 2 more tokens of 0.5 s
        assert done == [("a", 0.0, 3.0), ("b", 3.0, 6.0), ("c", 6.0, 9.0)]
        assert (e.n_running, e.n_waiting) == (0, 0)

    run(main)


def test_tokens_come_on_an_absolute_schedule_however_late_they_are_fetched():
    async def main(loop):
        e = engine(loop)
        ticket = e.admit(n_prompt=0, n_out=5)
        times = []
        for token in range(5):
            await ticket.until(token)
            times.append(round(loop.time() - 1000, 6))
            if token == 1:
                await asyncio.sleep(0.7)  # the loop was busy: the next two tokens are late, the last is not
        e.release(ticket, "stop", streamed=True)
        assert times == [1.0, 1.5, 2.2, 2.5, 3.0]

    run(main)


def test_a_client_that_leaves_frees_its_slot_at_once():
    async def main(loop):
        e = engine(loop)
        first, second = e.admit(0, 100), e.admit(0, 1)
        assert second.start_s is None
        loop.call_later(0.25, first.client_gone)
        with pytest.raises(ClientGoneError):
            await first.until(99)
        e.release(first, "abort", streamed=False)
        assert second.start_s == pytest.approx(1000.25)
        await second.until(0)
        e.release(second, "stop", streamed=False)
        assert e.metrics.finished == {"abort": 1, "stop": 1}

    run(main)


def test_a_client_that_leaves_the_line_does_not_get_a_slot_later():
    async def main(loop):
        e = engine(loop)
        first, second, third = e.admit(0, 1), e.admit(0, 1), e.admit(0, 1)
        second.client_gone()
        with pytest.raises(ClientGoneError):
            await second.until(0)
        e.release(second, "abort", streamed=False)
        await first.until(0)
        e.release(first, "stop", streamed=False)
        assert second.start_s is None
        assert third.start_s == pytest.approx(first.end_s)

    run(main)


def test_a_dying_engine_fails_running_and_waiting_requests_and_takes_no_more():
    async def main(loop):
        e = engine(loop)
        tickets = [e.admit(0, 10), e.admit(0, 10)]
        loop.call_later(0.1, e.die)
        results = await asyncio.gather(*(t.until(9) for t in tickets), return_exceptions=True)
        assert [type(r) for r in results] == [EngineDeadError, EngineDeadError]
        with pytest.raises(EngineDeadError):
            e.admit(0, 1)

    run(main)


def test_metrics_count_tokens_and_time_of_what_was_answered():
    async def main(loop):
        e = engine(loop)
        ticket = e.admit(n_prompt=10, n_out=5)
        await ticket.until(4)
        ticket.n_emitted = 5
        assert e.tokens_held() == 15
        assert e.tokens_per_s() == pytest.approx(2.0)
        e.release(ticket, "length", streamed=False)
        m = e.metrics
        assert (m.prompt_tokens.total(), m.generation_tokens.total()) == (10, 5)
        assert m.ttft[False].sum == pytest.approx(2.0)
        assert m.e2e[False].sum == pytest.approx(4.0)
        assert m.inter_token.sum == pytest.approx(2.0)
        assert m.inter_token.cumulative()[-1] == ("+Inf", 4)

    run(main)
