"""How long the simulated model takes, and who may use it: pure, with the clock passed in.

Time to first token grows with the prompt, and every further token takes the same time:

    TTFT = (ttft_base + n_prompt x ttft_per_token) / speed        TPOT = tpot / speed

counted from the moment a request gets one of the server's slots. All times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from lbrun.embedded.settings import ServerSettings

_ROUNDING_S = 1e-6  # sums of floats must not make a token look not yet due at the time it is due


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of one answer. Tokens are due on an absolute schedule, so lateness never adds up."""

    ttft_s: float
    tpot_s: float

    def due_s(self, start_s: float, token: int) -> float:
        """When a token (from 0) is due for a request that got its slot at `start_s`."""
        return start_s + self.ttft_s + token * self.tpot_s

    def n_due(self, start_s: float, now_s: float) -> int:
        """How many tokens are due by now."""
        since_first = now_s - start_s - self.ttft_s + _ROUNDING_S
        if since_first < 0:
            return 0
        return int(since_first / self.tpot_s) + 1 if self.tpot_s else 2**31


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Times as a function of the prompt's length.

    jitter: times vary by up to this share, as the request's `luck` (0 to 1) has it.
    """

    ttft_base_s: float
    ttft_per_token_s: float
    tpot_s: float
    jitter: float = 0.0

    @classmethod
    def of(cls, settings: ServerSettings) -> LatencyModel:
        """The model of one server; its speed is divided out."""
        return cls(
            ttft_base_s=settings.ttft_base_ms / 1e3 / settings.speed,
            ttft_per_token_s=settings.ttft_per_token_us / 1e6 / settings.speed,
            tpot_s=settings.tpot_ms / 1e3 / settings.speed,
            jitter=settings.jitter,
        )

    def pace(self, n_prompt: int, luck: float = 0.5, slowness: float = 1.0) -> Pace:
        """The times of an answer to a prompt of so many tokens. slowness multiplies them."""
        factor = slowness * (1 + self.jitter * (2 * luck - 1))
        return Pace(
            ttft_s=(self.ttft_base_s + n_prompt * self.ttft_per_token_s) * factor,
            tpot_s=self.tpot_s * factor,
        )


T = TypeVar("T")


class SlotQueue(Generic[T]):
    """A fixed number of slots and one line for them, first come, first served."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.running: set[T] = set()
        self._line: dict[T, float] = {}  # in order of arrival: item -> when it came

    @property
    def n_waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def arrive(self, item: T, now_s: float) -> bool:
        """Take a slot, or stand in line; true where the slot is free."""
        if len(self.running) < self._slots:
            self.running.add(item)
            return True
        self._line[item] = now_s
        return False

    def leave(self, item: T, at_s: float) -> tuple[T, float] | None:
        """Give up the slot or the place in line; who gets the slot now, and since when it is its own.

        at_s may lie in the past (when the slot became free by schedule), but nobody starts before arrival.
        """
        if item not in self.running:
            self._line.pop(item, None)
            return None
        self.running.remove(item)
        if not self._line:
            return None
        following = next(iter(self._line))
        arrived_s = self._line.pop(following)
        self.running.add(following)
        return following, max(arrived_s, at_s)
