"""What every benchmark is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.program import Lbrun


@dataclass(frozen=True, slots=True)
class Bench:
    """lbrun: starts runs over a data set of small samples. scratch: a folder that is removed in the end.

    repeats: of each measurement; the median counts. quick: short runs that show only that everything works;
    their figures are worth nothing. progress: told what is going on.
    """

    lbrun: Lbrun
    scratch: Path
    repeats: int = 2
    quick: bool = False
    progress: Callable[[str], None] = lambda text: None

    def n(self, full: int, quick: int) -> int:
        """A number of samples."""
        return quick if self.quick else full

    def with_dataset(self, path: Path) -> Lbrun:
        """Runs over other data."""
        return replace(self.lbrun, dataset=path)

    @property
    def python(self) -> str:
        """The interpreter of the suite and of lbrun."""
        return sys.executable
