"""Measure what lbrun costs: ``python -m benchmarks``. About a quarter of an hour, the other clients apart."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import data, machine, table
from benchmarks.bench import Bench
from benchmarks.cases import BENCHMARKS
from benchmarks.figures import BenchmarkError, Figure, Report, ratios, read_report
from benchmarks.peers import comparison
from benchmarks.program import Lbrun

RESULTS = Path(__file__).with_name("results")
LATEST, BASELINE = RESULTS / "latest.json", RESULTS / "baseline.json"


def main() -> int:
    """Run what is asked for. Exit status 1: a benchmark broke; a missed target is none."""
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended with the suite
    try:
        return _run(_arguments(), console)
    except BenchmarkError as error:
        console.print(str(error), style="red", highlight=False)
        return 2


def _run(arguments: argparse.Namespace, console: Console) -> int:
    against = _earlier(arguments.against, console)
    report = Report(
        machine=machine.describe(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings={"repeats": arguments.repeats, "quick": arguments.quick, "remark": arguments.remark},
    )
    wanted = [(b.name, b.run) for b in BENCHMARKS if b.name in (arguments.only or [b.name])]
    if arguments.peers:
        wanted += comparison.benchmarks(arguments.peer_venv)
    # the run writes its folders here, and 1,000,000 records are some hundred MB
    with tempfile.TemporaryDirectory(prefix="lbrun-bench-") as folder, _status(console) as progress:
        scratch = Path(folder)
        bench = Bench(
            lbrun=Lbrun(scratch, data.small(scratch)),
            scratch=scratch,
            repeats=1 if arguments.quick else arguments.repeats,
            quick=arguments.quick,
            progress=progress,
        )
        for name, run in wanted:
            _measure(report, name, run, bench, console)
            report.write(arguments.json)
    table.show(console, report, ratios(report.figures, against.figures) if against else None)
    console.print(f"written: {arguments.json}", highlight=False)
    if arguments.markdown is not None:
        table.insert(arguments.markdown, report)
    return 1 if report.failures else 0


@contextlib.contextmanager
def _status(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that tells what is going on, where there is a terminal to show it."""
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        yield status.update


def _measure(
    report: Report, name: str, run: Callable[[Bench], Iterator[Figure]], bench: Bench, console: Console
) -> None:
    """One benchmark; what it measured before it broke is kept."""
    began = time.monotonic()
    try:
        for figure in run(bench):
            report.figures.append(figure)
            met = {None: "", True: "met", False: "missed"}[figure.met]
            console.print(f"{figure.title}: {figure.value:,.4g} {figure.unit} {met}", highlight=False)
    except (BenchmarkError, OSError) as error:
        report.failures[name] = str(error)
        console.print(f"{name}: {error}", style="red", highlight=False)
    report.seconds[name] = round(time.monotonic() - began, 1)


def _earlier(path: Path | None, console: Console) -> Report | None:
    """The result to compare with; None where there is none."""
    if path is None:
        if not BASELINE.exists():
            return None
        path = BASELINE
    earlier = read_report(path)
    console.print(f"compared with {path.name} of {earlier.date}", highlight=False)
    return earlier


def _arguments() -> argparse.Namespace:
    names = "\n".join(f"  {b.name:12} {b.what}" for b in BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"benchmarks:\n{names}\n\nSee docs/performance.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = [b.name for b in BENCHMARKS] + ["none"]
    parser.add_argument("only", nargs="*", choices=[*choices, []], help="these benchmarks only (all)")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement; the median counts (2)")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="write figures here")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the table there, between its marks"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="compare with this result (results/baseline.json)"
    )
    parser.add_argument("--remark", default="", help="kept with the figures, and shown above them")
    parser.add_argument("--peers", action="store_true", help="measure other clients too (benchmarks/peers)")
    parser.add_argument(
        "--peer-venv",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a virtual environment with peers in it; may be given more than once",
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
