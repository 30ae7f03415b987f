"""Schema, documentation and conf/config.yaml say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lbrun.cli.conf_dir import CONF_DIR
from lbrun.config import urls
from lbrun.config.keys import all_keys, closest, is_known
from lbrun.config.official import BENCHMARKS

ROOT = Path(__file__).resolve().parent.parent.parent


def conf(name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{name}.yaml"))


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def test_config_yaml_has_every_key_with_the_schemas_default() -> None:
    """So that each key can be overridden without a +, and its comment tells the truth."""
    written = flat({k: v for k, v in conf("config").items() if k not in ("defaults", "hydra")})
    schema = {
        key.name: list(key.default) if isinstance(key.default, tuple) else key.default
        for key in all_keys().values()
        if not key.section and not key.required and not key.name.startswith("servers.embedded.")
    }
    schema["servers.embedded"] = None
    assert written == {name: value for name, value in schema.items() if name != "strategy.name"}


def test_the_embedded_group_shows_the_schemas_defaults() -> None:
    prefix = "servers.embedded."
    defaults = {
        k.name.removeprefix(prefix): k.default for k in all_keys().values() if k.name.startswith(prefix)
    }
    written = conf("servers/embedded")["embedded"]
    assert written == {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}


@pytest.mark.parametrize("name", ["llama3_1_8b", "gpt_oss_120b", "qwen3vl"])
def test_the_models_say_what_the_rules_say(name: str) -> None:
    model = conf(f"model/{name}")
    benchmark = BENCHMARKS[model["mlperf_name"]]
    assert model["official"] == {
        "performance_samples": benchmark.performance_samples,
        "accuracy_samples": benchmark.accuracy_samples,
    }
    assert model.get("sampling", {}) == benchmark.sampling
    assert model.get("sampling_accuracy", {}) == benchmark.sampling_accuracy


def test_the_documentation_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run python scripts/make_docs.py"


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in all_keys().values() if not key.meaning] == []


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("servers.urls", True),
        ("servers.urls.0", True),
        ("servers.urls.x", False),
        ("servers.headers.X-A", True),
        ("model.extra_body.a.b", True),
        ("servers", True),
        ("servers.foo", False),
        ("urls", False),
    ],
)
def test_known_keys(name: str, known: bool) -> None:
    assert is_known(name) is known


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("servers.url", "servers.urls"),
        ("target_qps", "scenario.target_qps"),
        ("strategy.weights", "servers.weights"),
        ("scenario.target_qsp", "scenario.target_qps"),
        ("server.urls", "servers.urls"),
        ("nothing.like_it", None),
    ],
)
def test_the_key_that_was_meant(wrong: str, meant: str | None) -> None:
    assert closest(wrong) == meant


@given(
    scheme=st.sampled_from(["http", "https"]),
    host=st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5})?", fullmatch=True)
    | st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
    port=st.none() | st.integers(1, 65535),
    path=st.sampled_from(["", "/", "/v1", "/v1/", "/proxy", "/proxy/v1"]),
)
def test_good_urls_are_kept_and_lead_to_one_server_however_written(
    scheme: str, host: str, port: int | None, path: str
) -> None:
    url = f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"
    kept = urls.check_url(url)
    assert kept == url.rstrip("/")
    assert urls.canonical(kept) == urls.canonical(urls.check_url(kept + "/"))
