"""What only shows when LoadGen's settings are made is refused before any server is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_server_scenario_without_streams_is_refused_where_first_tokens_count(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "lbrun", "scenario=server", "scenario.target_qps=1", "scenario.stream=false",
        "servers.urls=[http://127.0.0.1:1]", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "lbrun: scenario.stream: LoadGen wants the time of llama3.1-8b's first tokens" in ended.stderr
    assert "waiting for" not in ended.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["verdict"] == "FAILED"
