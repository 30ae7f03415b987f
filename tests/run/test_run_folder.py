"""The run's folder: what is in it already is not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbrun.cli.compose import plan
from lbrun.config import load_settings
from lbrun.errors import ConfigError
from lbrun.run.job import run_job


@pytest.mark.parametrize("name", ["summary.txt", "requests.parquet", "mlperf"])
def test_files_that_a_run_would_overwrite_are_left_alone_where_no_run_has_written_them(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text("the user's own")
    settings = load_settings(plan([]).jobs[0].config)
    with pytest.raises(ConfigError, match=f"hydra.run.dir: .* holds {name}, .*; name another folder"):
        run_job(settings, tmp_path, command="")
    assert path.read_text() == "the user's own"
    assert [child.name for child in tmp_path.iterdir()] == [name]


def test_what_a_run_that_was_cut_has_left_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "mlperf").mkdir(parents=True)
    (folder / "result.json").write_text('{"state": "running"}')
    left = [folder / "outputs.jsonl", folder / "mlperf" / "mlperf_log_summary.txt"]
    for path in left:
        path.write_text("Result is : VALID\n")
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    job = plan([f"dataset.path={data}", "servers.urls=[http://127.0.0.1:9]"]).jobs[0]
    with pytest.raises(ConfigError, match=r"data\.jsonl"):
        run_job(load_settings(job.config), folder, command="")
    assert not any(path.exists() for path in left)
