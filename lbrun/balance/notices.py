"""What a strategy is told, without letting its mistakes into the pool's accounts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lbrun.balance.strategy import BaseStrategy, Strategy
from lbrun.errors import RunFailed

_log = logging.getLogger("lbrun.balance")


class Notices:
    """The notices of one strategy.

    A notice comes in the middle of the pool's accounting, which an exception would leave half done: attempts
    counted in that never end, samples that are never completed. So the first notice of a user's strategy that
    raises is the last one given, and its error is told by `check`, before the next pick.

    trusted: the strategy is one of lbrun's own, whose notices are called as they are.
    """

    def __init__(self, strategy: Strategy, *, trusted: bool) -> None:
        self._strategy, self._trusted = strategy, trusted
        self._error: BaseException | None = None

    def get(self, name: str) -> Callable[..., None] | None:
        """The notice of that name; None where it is the base class's empty one, to save the call."""
        if getattr(type(self._strategy), name) is getattr(BaseStrategy, name):
            return None
        method: Callable[..., None] = getattr(self._strategy, name)
        return method if self._trusted else self._contained(method)

    def check(self) -> None:
        """Raise RunFailed where a notice has raised."""
        if self._error is not None:
            error = self._error
            raise RunFailed(f"strategy {self._strategy.name!r} broke: {type(error).__name__}: {error}")

    def ask(self, pick: Callable[..., int], *args: object) -> int:
        """What the strategy picks. Raises RunFailed where that, or a notice before it, has raised."""
        self.check()
        try:
            return pick(*args)
        except BaseException as error:  # SystemExit of a user's strategy would end the loop, and hang LoadGen
            _log.exception("strategy %r broke", self._strategy.name)
            self._error = error
            self.check()
            raise  # never: check has raised

    def _contained(self, method: Callable[..., None]) -> Callable[..., None]:
        def notice(*args: object) -> None:
            if self._error is not None:
                return
            try:
                method(*args)
            except BaseException as error:
                _log.exception("strategy %r broke", self._strategy.name)
                self._error = error

        return notice
