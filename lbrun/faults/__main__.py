"""``python -m lbrun.faults``: run the catalogue of faults, and print what was lost."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lbrun.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, EXIT_VALID
from lbrun.faults.catalogue import CATALOGUE
from lbrun.faults.harness import carry_out
from lbrun.faults.report import SOAK, TABLE, check_marks, insert, measured, soak_figures
from lbrun.faults.scenario import Mode, Row, Scenario
from lbrun.faults.soak import soak
from lbrun.faults.table import LEGEND, document, markdown, text_head, text_row, totals
from lbrun.terminal.output import show

_PROGRAM = "python -m lbrun.faults"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Run real lbrun runs under faults, and check that nothing is lost, doubled or invented.",
        epilog=f"{LEGEND}. Exit status 0: everything held, 1: something did not.",
    )
    parser.add_argument("--list", action="store_true", help="show the scenarios and end")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these scenarios; NAME* for all that begin so"
    )
    parser.add_argument(
        "--scenario", choices=[str(mode) for mode in Mode], help="only in this LoadGen scenario"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file as well")
    parser.add_argument(
        "--markdown",
        nargs="?",
        const="",
        metavar="FILE",
        help="print the table in Markdown at the end, or put it into FILE, between its marks",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="so many scenarios at once (default: 1)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep what broken scenarios' runs have left"
    )
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="one long run under rolling faults instead"
    )
    return parser


def chosen(only: Sequence[str] | None, mode: Mode | None) -> list[tuple[Scenario, Mode]]:
    """The scenarios to run, each in its modes. Raises ValueError for a name that is none."""
    for name in only or ():
        if not any(_matches(scenario, name) for scenario in CATALOGUE):
            raise ValueError(f"there is no scenario {name!r}; see --list")
    return [
        (scenario, m)
        for scenario in CATALOGUE
        if only is None or any(_matches(scenario, name) for name in only)
        for m in scenario.modes
        if mode in (None, m)
    ]


def _matches(scenario: Scenario, name: str) -> bool:
    return scenario.name.startswith(name[:-1]) if name.endswith("*") else scenario.name == name


def _rows(work: Sequence[tuple[Scenario, Mode]], keep: Path | None, jobs: int) -> Iterator[Row]:
    """Carry them out, and show each row when it is known; those that need the machine for themselves last."""
    show(text_head() + "\n")
    together = [(scenario, mode) for scenario, mode in work if not scenario.alone]
    alone = [(scenario, mode) for scenario, mode in work if scenario.alone]
    for part, threads in ((together, jobs), (alone, 1)):
        for row in _side_by_side(part, keep, threads):
            show(text_row(row) + "\n")
            yield row


def _side_by_side(work: Sequence[tuple[Scenario, Mode]], keep: Path | None, threads: int) -> Iterator[Row]:
    given_up = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="scenario") as pool:
        started = [pool.submit(carry_out, scenario, mode, keep, given_up) for scenario, mode in work]
        try:
            for future in as_completed(started):
                yield future.result()
        finally:  # Ctrl-C: what runs is ended, what does not run is not begun
            given_up.set()
            pool.shutdown(cancel_futures=True)


def _in_order(rows: Sequence[Row], work: Sequence[tuple[Scenario, Mode]]) -> list[Row]:
    place = {(scenario.name, mode): n for n, (scenario, mode) in enumerate(work)}
    return sorted(rows, key=lambda row: place[row.scenario, row.mode])


def _soak(minutes: float, keep: Path | None, file: Path | None) -> int:
    result = soak(minutes, keep=keep)
    show(f"{text_head()}\n{text_row(result.row)}\n\n{result.faults} faults; the test's process:\n")
    show(result.describe() + "\n")
    if file is not None:
        insert(file, SOAK, soak_figures(result))
    return EXIT_VALID if result.row.held else EXIT_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        show("".join(f"{s.name:32} {'+'.join(s.modes):15} {s.about}\n" for s in CATALOGUE))
        return EXIT_VALID
    file = Path(options.markdown) if options.markdown else None
    try:
        if options.jobs < 1:
            raise ValueError(f"--jobs {options.jobs}: write 1 or more")
        if file is not None:
            check_marks(file, TABLE if options.soak is None else SOAK)
        work = chosen(options.only, Mode(options.scenario) if options.scenario else None)
    except ValueError as error:
        show(f"{_PROGRAM}: {error}\n", sys.stderr)
        return EXIT_USER_ERROR
    if options.soak is not None:
        return _soak(options.soak, options.keep, file)
    rows: list[Row] = []
    began_s = time.monotonic()
    try:
        for row in _rows(work, options.keep, options.jobs):
            rows.append(row)
    except KeyboardInterrupt:
        show("interrupted\n", sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        rows = _in_order(rows, work)
        if options.json is not None:
            options.json.write_text(json.dumps(document(rows), indent=2) + "\n", encoding="utf-8")
    show(f"\n{totals(rows)}\n")
    if file is not None:
        insert(
            file, TABLE, measured(rows, options.jobs, time.monotonic() - began_s) + markdown(rows, CATALOGUE)
        )
    elif options.markdown is not None:
        show("\n" + markdown(rows, CATALOGUE))
    return EXIT_VALID if all(row.held for row in rows) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
