"""What must hold in every scenario, and what a scenario expects besides: checked against the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lbrun.errors import EXIT_FAILED, EXIT_INTERRUPTED
from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import Expected, Mode
from lbrun.results.outputs import FILE_NAME as OUTPUTS

_EXIT_OF = {"VALID": 0, "INVALID": 3, "FAILED": EXIT_FAILED}
_SHOWN = 3


def completed_twice(evidence: Evidence) -> int:
    """Samples with more than one completion, by LoadGen's log or by the records, whichever has more."""
    by_loadgen = sum("twice" in str(value) for value in evidence.loadgen.get("error_runtime", ()))
    by_loadgen += sum("twice" in str(value) for value in evidence.loadgen.get("error", ()))
    ids = Counter(row["query_id"] for row in evidence.rows)
    return max(by_loadgen, sum(n - 1 for n in ids.values()))


def false_successes(evidence: Evidence) -> list[str]:
    """Samples that are recorded as answered, and whose answer no server gave, each in words."""
    if not evidence.rows or "config" not in evidence.result:
        return []
    right, as_text = evidence.right_answers, evidence.result["config"]["model"]["payload"] == "text"
    found = []
    said = {line["query_id"]: line for line in evidence.outputs}
    # a run that was cut, or whose disk is full, has lost the end of its answers, and says so
    incomplete = (
        evidence.result.get("state") == "running"
        or OUTPUTS in str(evidence.result["errors"])
        or _lacks_records(evidence)
    )
    for row in evidence.rows:
        if row["failure"] is not None:
            continue
        answer = right[row["sample_index"]]
        wanted = answer.text if as_text else list(answer.ids)
        line = said.get(row["query_id"])
        output = None if line is None else line.get("text" if as_text else "token_ids")
        is_right = output == wanted and row["n_tokens"] == len(answer)
        if not is_right and not (line is None and incomplete):
            found.append(f"sample {row['sample_index']} passes as answered with {_short(output)}")
    return found


def _lacks_records(evidence: Evidence) -> bool:
    """The run says itself that samples are missing in its records."""
    return any("records are incomplete" in error for error in evidence.result["errors"])


def check_run(evidence: Evidence) -> Iterator[str]:
    """What does not hold of what must hold in every run that came to its end, good or bad."""
    result, rows = evidence.result, evidence.rows
    if not result:
        yield "result.json cannot be read"
        return
    yield from _check_rows(rows, evidence.mode)
    samples = result["samples"]
    issued, completed, failed = samples["issued"], samples["completed"], samples["failed"]
    if None in (issued, completed, failed):
        if rows:
            yield "result.json has no counts although samples were issued"
        return
    if issued != completed + failed:
        yield f"{issued} issued, but {completed} completed and {failed} failed"
    # a test that was killed leaves what it had written by then, and its result says so
    unwritten = issued - len(rows) if _lacks_records(evidence) else 0
    if len(rows) + unwritten != issued or unwritten < 0:
        yield f"{issued} issued, but {len(rows)} rows of records"
    n_failed = sum(row["failure"] is not None for row in rows)
    if n_failed + unwritten != failed:
        yield f"{failed} failed, but {n_failed} so in the records"
    by_loadgen = _issued_by_loadgen(evidence)
    if by_loadgen is not None and result["state"] == "finished" and by_loadgen != issued:
        yield f"LoadGen issued {by_loadgen} samples, lbrun says {issued}"
    yield from _check_verdict(evidence, failed)
    yield from (f"in flight at the end: {error}" for error in result["errors"] if "in flight at" in error)


def _check_rows(rows: list[dict[str, Any]], mode: Mode) -> Iterator[str]:
    bad_order = bad_success = bad_failure = 0
    for row in rows:
        times = [row["issued_ns"], row["first_token_ns"], row["done_ns"]]
        known = [t for t in times if t is not None]
        bad_order += known != sorted(known)
        if row["failure"] is None:
            no_first_token = mode is Mode.SERVER and row["first_token_ns"] is None
            bad_success += row["n_tokens"] < 1 or no_first_token or row["server"] is None
            attempts = row["attempts"]
            bad_success += attempts is not None and attempts[-1]["failure"] is not None
        else:
            bad_failure += row["n_tokens"] != 0
    if bad_order:
        yield f"{bad_order} samples with issue, first token and completion out of order"
    if bad_success:
        yield f"{bad_success} samples that pass as answered without token, first token or good attempt"
    if bad_failure:
        yield f"{bad_failure} failed samples with tokens"


def _issued_by_loadgen(evidence: Evidence) -> int | None:
    """How many samples LoadGen's own log says it has issued; None where it did not come to that."""
    log = evidence.loadgen
    if evidence.mode is Mode.SERVER:
        counts = log.get("result_query_count")
        return int(counts[-1]) if counts else None
    counts, sizes = log.get("generated_query_count"), log.get("generated_samples_per_query")
    return int(counts[-1]) * int(sizes[-1]) if counts and sizes else None


def _check_verdict(evidence: Evidence, failed: int) -> Iterator[str]:
    result, status = evidence.result, evidence.exit_status
    verdict, state = result["verdict"], result["state"]
    if failed and verdict != "FAILED":
        yield f"{failed} samples failed, and the verdict is {verdict}"
    wanted = EXIT_INTERRUPTED if state == "interrupted" else _EXIT_OF[verdict]
    if status != wanted:
        yield f"verdict {verdict} ({state}), and exit status {status}"
    summaries = list((evidence.folder / "mlperf").glob("mlperf_log_summary.txt"))
    if verdict == "FAILED" and summaries:
        yield "FAILED, and LoadGen's summary has the name that is submitted"


def check_cut(evidence: Evidence) -> Iterator[str]:
    """What does not hold of a run whose own processes were killed."""
    result = evidence.result
    if not result:
        yield "result.json cannot be read"
        return
    if result["verdict"] != "FAILED" or not result["errors"]:
        yield f"killed, and result.json says {result['verdict']}"
    yield from _check_rows(evidence.rows, evidence.mode)


def check_expected(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """What a scenario expected and did not come to."""
    if not expected.cut and evidence.exit_status not in expected.exit_status:
        wanted = " or ".join(map(str, sorted(expected.exit_status)))
        yield f"exit status {evidence.exit_status} instead of {wanted}: {'; '.join(_errors(evidence))}"
    fewest, most = expected.lost
    if evidence.lost < fewest or (most is not None and evidence.lost > most):
        yield f"{evidence.lost} samples lost, {_range(fewest, most)} expected: {'; '.join(_errors(evidence))}"
    if expected.stays_in:
        yield from (f"taken out: {line}" for line in evidence.ejections()[:_SHOWN])
    yield from _check_times(evidence, expected)
    if expected.attempts_per_sample is not None:
        made = evidence.attempts_per_sample
        if made > expected.attempts_per_sample:
            yield f"{made:.2f} attempts per sample, at most {expected.attempts_per_sample:g} expected"
    text = str(evidence.result.get("errors")) + str(evidence.result.get("warnings")) + evidence.told
    yield from (f"nothing is said of {word!r}" for word in expected.says if word not in text)


def _check_times(evidence: Evidence, expected: Expected) -> Iterator[str]:
    if expected.out_within_s is not None:
        yield from (f"server {server} was never taken out" for server in evidence.never_ejected())
        took = evidence.eject_s()
        if took is not None and took > expected.out_within_s:
            yield f"out of service after {took:.1f} s, {expected.out_within_s:g} s expected"
    if expected.back_within_s is not None:
        yield from (f"server {server} never came back" for server in evidence.never_back())
        took = evidence.recover_s()
        if took is not None and took > expected.back_within_s:
            yield f"back in service after {took:.1f} s, {expected.back_within_s:g} s expected"
    if expected.ends_within_s is not None and evidence.last_fault_s is not None:
        took = evidence.ended_s - evidence.last_fault_s
        if took > expected.ends_within_s:
            yield f"ended {took:.1f} s after the last fault, {expected.ends_within_s:g} s expected"


def _errors(evidence: Evidence) -> list[str]:
    errors = evidence.result.get("errors") or evidence.told.splitlines()[-_SHOWN:]
    return [str(error)[:200] for error in errors[:_SHOWN]]


def _range(fewest: int, most: int | None) -> str:
    if most is None:
        return f"{fewest} or more"
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _short(output: object) -> str:
    text = repr(output)
    return text if len(text) <= 60 else f"{text[:60]}..."
