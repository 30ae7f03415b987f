"""No group, and no override, makes Hydra import or call code that lbrun does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lbrun.cli.compose import plan
from lbrun.errors import ConfigError

MARK = {"args": ["touch", "made"]}


@pytest.mark.parametrize(
    ("hydra", "key"),
    [
        ({"callbacks": {"x": {"_target_": "subprocess.Popen", **MARK}}}, "hydra.callbacks.x._target_"),
        ({"callbacks": {"x": {"_target_": "logging.FileHandler"}}}, "hydra.callbacks.x._target_"),
        ({"sweeper": {"_target_": "hydrant.Sweeper"}}, "hydra.sweeper._target_"),
        ({"launcher": {"_target_": "os.system"}}, "hydra.launcher._target_"),
        ({"job_logging": {"filters": {"x": {"()": "os.system", **MARK}}}}, "hydra.job_logging.filters.x.()"),
        ({"job_logging": {"handlers": {"x": {"class": "a.B"}}}}, "hydra.job_logging.handlers.x.class"),
        ({"hydra_logging": {"root": {"level": "ext://antigravity.x"}}}, "hydra.hydra_logging.root.level"),
    ],
)  # fmt: skip
def test_foreign_code_in_a_group_is_refused_by_its_key(
    tmp_path: Path, hydra: dict[str, object], key: str
) -> None:
    group = tmp_path / "servers" / "theirs.yaml"
    group.parent.mkdir()
    group.write_text("# @package _global_\n" + yaml.safe_dump({"hydra": hydra}))
    with pytest.raises(ConfigError) as raised:
        plan(["servers=theirs"], config_dir=tmp_path)
    (problem,) = raised.value.problems
    assert problem.startswith(f"{key}: ")


def test_foreign_code_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra.callbacks.x._target_: 'subprocess.Popen'"):
        plan(["+hydra.callbacks.x._target_=subprocess.Popen"])


def test_hydras_own_parts_and_logging_are_fine() -> None:
    assert plan(["hydra/job_logging=default", "hydra/hydra_logging=default"]).jobs
    assert plan(["+hydra.callbacks.x._target_=hydra.experimental.callbacks.LogJobReturnCallback"]).jobs
