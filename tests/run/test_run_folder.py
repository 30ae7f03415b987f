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
