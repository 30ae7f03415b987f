"""LoadGen can log failed samples in every scenario and mode; a response that it refuses takes no other along.

Each test runs LoadGen in a process of its own: a crash would end the tests as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lbrun.loadgen.logs import ACCURACY, DETAIL

PROGRAM = """
import json, sys
from pathlib import Path
from lbrun.attempt import Answer, AttemptResult
from lbrun.dispatch.completions import Completions
from lbrun.dispatch.sample import OpenSample
from lbrun.loadgen.test import LoadGenPort, LoadGenSettings, LoadGenTest

order = json.loads(sys.argv[1])
huge = order.pop("huge")
if "audit_conf" in order:
    order["audit_conf"] = Path(order["audit_conf"])
test = LoadGenTest(LoadGenSettings(**order), Path(sys.argv[2]))

class Records:
    def add(self, *values):
        pass

port = LoadGenPort(needs_first_tokens=test.uses_first_tokens)
out = Completions(port, Records(), None, None, None, lambda: None)

def issue(ids, indices):
    # by turns: answered, failed after its first token, failed before it
    for query_id, index in zip(ids, indices):
        out.counts.issued += 1
        sample = OpenSample(query_id, index, 1, 1)
        if test.uses_first_tokens and index % 3 < 2:
            out.first_token(sample, 2, b"aaaa")
        if index % 3 == 0:
            n_tokens = 2**63 if huge and index == 3 else 2
            out.answered(sample, AttemptResult(1, 1, 1, 2, Answer(n_tokens, 1, b"aaaabbbb", "stop")))
        else:
            out.failed(sample, "of the test's")
    out.flush()

test.run(issue)
c = out.counts
print(json.dumps({"issued": c.issued, "completed": c.completed, "failed": c.failed}))
"""
N = 9
AUDIT = "*.*.accuracy_log_rng_seed = 720381539243781796\n*.*.accuracy_log_sampling_target = 9\n"


def run(tmp_path: Path, *, huge: bool = False, **order: Any) -> tuple[dict[str, int], Path]:
    """Run a test; the counts, and LoadGen's folder."""
    order = {"model": "llama3_1-8b", "scenario": "Server", "mode": "accuracy", "samples": N, **order}
    order["values"] = {
        "min_duration": 0,
        "min_query_count": N,
        "performance_sample_count_override": N,
        **({"target_qps": 1000} if order["scenario"] == "Server" else {}),
    }
    folder = tmp_path / "mlperf"
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps({**order, "huge": huge}), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout), folder


@pytest.mark.parametrize("mode", ["accuracy", "performance"])
@pytest.mark.parametrize(
    ("model", "scenario"),
    [("llama3_1-8b", "Offline"), ("llama3_1-8b", "Server"), ("llama3_1-8b-interactive", "Server"),
     ("qwen3-vl-235b-a22b", "Server")],
)  # fmt: skip
def test_failed_samples_do_not_end_the_process(tmp_path: Path, model: str, scenario: str, mode: str) -> None:
    counts, folder = run(tmp_path, model=model, scenario=scenario, mode=mode)
    assert counts["issued"] >= N
    assert counts["completed"] + counts["failed"] == counts["issued"]
    if mode == "accuracy":
        entries = {entry["qsl_idx"]: entry for entry in json.loads((folder / ACCURACY).read_text())}
        assert sorted(entries) == list(range(N))
        assert {i for i, entry in entries.items() if entry["data"]} == {0, 3, 6}


def test_failed_samples_of_a_compliance_test_do_not_end_the_process(tmp_path: Path) -> None:
    audit = tmp_path / "audit.config"
    audit.write_text(AUDIT)
    counts, folder = run(tmp_path, mode="performance", audit_conf=str(audit))
    assert counts["failed"]
    assert json.loads((folder / ACCURACY).read_text())


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_a_response_that_loadgen_refuses_takes_no_other_along(tmp_path: Path, scenario: str) -> None:
    counts, folder = run(tmp_path, scenario=scenario, huge=True)
    assert counts == {"issued": N, "completed": 2, "failed": 7}
    entries = {entry["qsl_idx"]: entry for entry in json.loads((folder / ACCURACY).read_text())}
    assert {i for i, entry in entries.items() if entry["data"]} == {0, 6}
    assert "complete a sample twice" not in (folder / DETAIL).read_text()
