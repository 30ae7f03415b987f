"""What is refused, in which words, and that everything wrong is told at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from config_samples import changed
from hypothesis import given
from hypothesis import strategies as st

from lbrun.config import RunSettings, config_hash, load_settings
from lbrun.errors import ConfigError


def problems_of(raw: dict[str, Any], environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(raw, environ=environ or {})
    return list(caught.value.problems)


LIST = "'servers.urls=[http://a:8000,http://b:8000]'"
USER = (
    "a URL with a user or password is not allowed; leave them out and name the environment variable that "
    "holds the key: servers.api_key_env=NAME"
)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # unknown keys
        ({"servers__foo": 1}, None),
        ({"servers__url": []}, "servers.url: there is no such key; did you mean servers.urls?"),
        ({"strategy__weights": [1]}, "strategy.weights: there is no such key; did you mean servers.weights?"),
        ({"client__workres": 1}, "client.workres: there is no such key; did you mean client.workers?"),
        (
            {"report__xyzzy": 1},
            "report.xyzzy: there is no such key; report has html, record_outputs",
        ),
        (
            {"servers__servers": {"urls": []}},
            "servers.servers: the keys of a file in servers/ are below servers already; "
            "leave the line `servers:` out",
        ),
        # one line
        (
            {"servers__served_model": "a\r\nX-Evil: 1"},
            "servers.served_model: a name may not hold control characters; write one line of text",
        ),
        (
            {"model__hf_id": "a\x1b[2J"},
            "model.hf_id: a name may not hold control characters; write one line of text",
        ),
        # types and bounds, with units
        (
            {"scenario__tpot_limit_ms": 14.6},  # LoadGen takes whole milliseconds
            "scenario.tpot_limit_ms: 14.6 is not a whole number; write a whole number (milliseconds)",
        ),
        (
            {"scenario__tpot_limit_ms": 0},
            "scenario.tpot_limit_ms: 0 is too small; write at least 1 (milliseconds)",
        ),
        (
            {"client__idle_timeout_s": -1},
            "client.idle_timeout_s: -1 is too small; write a number above 0 (seconds)",
        ),
        (
            {"client__idle_timeout_s": "soon"},
            "client.idle_timeout_s: 'soon' is not a number; write a number (seconds)",
        ),
        (
            {"servers__ready_timeout_s": 1e9},
            "servers.ready_timeout_s: 1000000000.0 is too large; write at most 86400 (seconds)",
        ),
        (
            {"servers__max_retries_per_server": 1.5},
            "servers.max_retries_per_server: 1.5 is not a whole number; write a whole number",
        ),
        (
            {"servers__max_retries_per_server": True},
            "servers.max_retries_per_server: true is not a number; write a number",
        ),
        (
            {"servers__max_retries_per_server": None},
            "servers.max_retries_per_server: null is not a whole number; write a whole number",
        ),
        ({"report__html": "maybe"}, "report.html: 'maybe' is not true or false; write true or false"),
        ({"scenario__percentile": 99}, "scenario.percentile: 99 is too large; write a number below 1"),
        (
            {"scenario__min_duration_s": float("nan")},
            "scenario.min_duration_s: nan is not a number; write a number (seconds)",
        ),
        ({"mode": "fast"}, "mode: 'fast' is not known; choose one of performance, accuracy"),
        ({"servers__health": 3}, "servers.health: 3 is not a group of keys; write keys below it"),
        (
            {"servers__max_in_flight": 0},
            "servers.max_in_flight: 0 is no limit; write a number from 1 to 1000000, auto, "
            "or null for unlimited",
        ),
        (
            {"model__formats": {"vllm": "grpc"}},
            "model.formats.vllm: 'grpc' is not known; choose one of completions, chat, sglang_generate",
        ),
        # servers.urls
        (
            {"servers__urls": "http://a:8000"},
            "servers.urls: one URL without brackets; write a list: 'servers.urls=[http://a:8000]'",
        ),
        (
            {"servers__urls": "http://a:8000, b:8000"},
            "servers.urls: several URLs in one string; write a list: "
            "'servers.urls=[http://a:8000,http://b:8000]'",
        ),
        (
            {"servers__urls": ["http://a:8000,http://b:8000"]},
            f"servers.urls[0]: several URLs in one string; write a list: {LIST}",
        ),
        (
            {"servers__urls": ["http://x", "a:8000"]},
            "servers.urls[1]: 'a:8000' has no scheme; write http://a:8000",
        ),
        ({"servers__urls": [8000]}, f"servers.urls[0]: 8000 is not a URL; write {LIST}"),
        ({"servers__urls": ["http://"]}, f"servers.urls[0]: 'http://' is not a URL; write {LIST}"),
        (
            {"servers__urls": ["ftp://a"]},
            "servers.urls[0]: 'ftp' is not a scheme that lbrun speaks; write http:// or https://",
        ),
        (
            {"servers__urls": ["http://a:99999"]},
            "servers.urls[0]: 'http://a:99999' has no usable port; write a port from 1 to 65535, or none",
        ),
        ({"servers__urls": ["http://me:pw@a:8000"]}, f"servers.urls[0]: {USER}"),
        (
            {"servers__urls": ["http://a:8000?key=1"]},
            "servers.urls[0]: 'http://a:8000' goes on with a query or a fragment; "
            "write the server's base URL only",
        ),
        (
            {"servers__urls": ["http://a", "http://b", "HTTP://A:80/v1/"]},
            "servers.urls[2]: 'HTTP://A:80/v1' is the same server as servers.urls[0]; name each server once",
        ),
        (
            {"servers__urls": []},
            f"servers.urls: the pool has no servers; write {LIST}, or servers=embedded",
        ),
        # between keys
        ({"servers__min_ready": 3}, "servers.min_ready: 3 is more than the pool has; write at most 2"),
        (
            {"servers__weights": [1, 2, 3]},
            "servers.weights: 3 weights for 2 servers; write one for each, in their order",
        ),
        (
            {"servers__health__backoff_cap_s": 0.5},
            "servers.health.backoff_cap_s: 0.5 is below servers.health.backoff_base_s; write "
            "at least 1 (seconds)",
        ),
        (
            {"servers__retry__wait_cap_ms": 10},
            "servers.retry.wait_cap_ms: 10 is below servers.retry.wait_base_ms; write at "
            "least 50 (milliseconds)",
        ),
        (
            {"model__request_format": "sglang_generate"},
            "model.request_format: sglang_generate is SGLang's own, and servers.backend is vllm; "
            "write model.request_format=completions, or servers.backend=sglang",
        ),
        (
            {"model__formats": {"sglang": "chat"}},
            "model.request_format: model.formats has nothing for servers.backend=vllm; "
            "write model.request_format=completions, or another",
        ),
        (
            {"model__sampling__min_tokens": 200},
            "model.sampling.min_tokens: 200 is more than max_tokens; write at most 128",
        ),
        (
            {"model__bundled_data": None},
            "dataset.path: lbrun has no sample data for llama3.1-8b; write dataset.path=./data.json",
        ),
        (
            {"model__chat__template": "{title} {price}"},
            "model.chat.template: {price} is not a field of a product; use {title}, "
            "{description}, {categories}",
        ),
        (
            {"scenario__name": "server", "scenario__target_qps": 5},
            "scenario.loadgen: scenario server is LoadGen's Server; write scenario.loadgen=Server",
        ),
        (
            {"scenario__min_query_count": 10, "scenario__max_query_count": 5},
            "scenario.max_query_count: 5 is less than the minimum; write at least 10",
        ),
        (
            {"strategy__name": "randm"},
            "strategy.name: 'randm' is not a built-in strategy; choose one of round_robin, random, weighted, "
            "least_outstanding, least_tokens, power_of_two, peak_ewma, or name your own class by "
            "strategy._target_ (did you mean random?)",
        ),
        (
            {"strategy___target_": "mine.Best"},
            "strategy._target_: mine.Best is not in an allowed package; write "
            "'allowed_packages=[lbrun,mine]'",
        ),
        (
            {"strategy___target_": "os"},
            "strategy._target_: 'os' is not the name of a class; write it as package.module.Class",
        ),
        (
            {"client__workers": -2},
            "client.workers: -2 is no number of workers; write 0 (the test's own process), "
            "a number up to 256, or auto",
        ),
        (
            {"client__cpus": [4096]},
            "client.cpus: there is no usable processor 4096; write some of "
            + ", ".join(map(str, sorted(os.sched_getaffinity(0)))),
        ),
        # secrets
        (
            {"servers__api_key_env": "MY_KEY"},
            "servers.api_key_env: the environment variable MY_KEY is not set; export it before the run",
        ),
        (
            {"servers__headers_env": {"X-Token": "MY_TOKEN"}},
            "servers.headers_env.X-Token: the environment variable MY_TOKEN is not set; "
            "export it before the run",
        ),
        (
            {"servers__headers": {"X-A": "1", "x-a": "2"}},
            "servers.headers.x-a: the header is set by servers.headers.X-A too; set it once",
        ),
    ],
)
def test_each_mistake_is_told_in_one_line(values: dict[str, Any], message: str | None) -> None:
    problems = problems_of(changed(**values))
    if message is None:
        (problem,) = problems
        assert problem.startswith("servers.foo: there is no such key; servers has urls, backend, ")
    else:
        assert problems == [message]


def test_all_problems_come_at_once_fields_and_cross_checks_alike() -> None:
    raw = changed(
        mode="fast",
        servers__urls=["a:8000", "http://b"],
        servers__foo=1,
        client__idle_timeout_s=-1,
        client__workers=-2,
        strategy__name="nope",
        scenario__min_query_count=10,
        scenario__max_query_count=5,
    )
    keys = [problem.split(":")[0] for problem in problems_of(raw)]
    assert sorted(keys) == [
        "client.idle_timeout_s",
        "client.workers",
        "mode",
        "scenario.max_query_count",
        "servers.foo",
        "servers.urls[0]",
        "strategy.name",
    ]


def test_a_wrong_key_is_not_blamed_twice_by_checks_that_involve_it() -> None:
    raw = changed(servers__urls=["a:8000"], servers__min_ready=5, servers__weights=[1, 2, 3])
    assert problems_of(raw) == ["servers.urls[0]: 'a:8000' has no scheme; write http://a:8000"]


def test_missing_sections_are_told_with_what_they_say() -> None:
    raw = changed()
    del raw["model"]["name"]
    assert problems_of(raw) == [
        "model.name: it is missing; it says the benchmark's name, as in MLPerf's results: llama3.1-8b"
    ]


CANARY = "sk-canary-123"


@pytest.mark.parametrize(
    "values",
    [
        {"servers__urls": [f"http://user:{CANARY}@a:8000"]},
        {"servers__urls": f"http://user:{CANARY}@a:8000,http://b"},
        {"servers__urls": [f"http://a:8000?key={CANARY}"]},
        {"servers__urls": [f"http://a:8000/#{CANARY}"]},
        {"servers__api_key_env": CANARY},
        {"servers__api_key_env": CANARY.replace("-", "_")},
        {"servers__headers": {"Authorization": CANARY}},
        {"servers__headers": {"X-Api-Key": CANARY}},
        {"servers__headers": {"X-A": f"{CANARY}\n"}},
        {"servers__headers_env": {"X-A": CANARY}},
        {"servers__headers_env": {"X-A": CANARY.replace("-", "_")}},
        {"servers__headers": [CANARY]},
        {"servers__headers": {"X-A": {"y": CANARY}}},
        {"servers__api_key": CANARY},
    ],
)
def test_what_may_be_a_secret_is_refused_and_never_repeated(values: dict[str, Any]) -> None:
    problems = problems_of(changed(**values))
    assert problems
    assert not [p for p in problems if "canary" in p]


def test_named_variables_that_are_set_are_accepted_and_only_their_names_kept() -> None:
    raw = changed(servers__api_key_env="MY_KEY", servers__headers_env={"X-Gate": "GATE"})
    settings = load_settings(raw, environ={"MY_KEY": CANARY, "GATE": CANARY})
    assert CANARY not in settings.model_dump_json()
    assert settings.servers.api_key_env == "MY_KEY"


def test_urls_replace_the_embedded_servers_without_a_word() -> None:
    settings = load_settings(changed(servers__embedded={"count": 3}), environ={})
    assert settings.servers.embedded is None
    assert settings.servers.n_servers == 2
    assert not settings.trial


def test_files_are_looked_for_from_the_folder_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[]")
    settings = load_settings(changed(dataset__path="./data.json"), base_dir=tmp_path, environ={})
    assert settings.dataset.path == tmp_path / "data.json"


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    raw = changed(dataset__path="no.json", servers__ca_file="folder", scenario__user_conf="")
    with pytest.raises(ConfigError) as caught:
        load_settings(raw, base_dir=tmp_path, environ={})
    assert caught.value.problems == (
        f"dataset.path: there is no file {tmp_path}/no.json; give the path of an existing file",
        f"servers.ca_file: {tmp_path}/folder is a folder; name a file in it",
        "scenario.user_conf: the path is empty; name a file, or leave the key at null",
    )


def test_numbers_may_come_as_text_from_the_environment() -> None:
    settings = load_settings(changed(scenario__target_qps="20", servers__min_ready="2"), environ={})
    assert settings.scenario.target_qps == 20
    assert settings.servers.min_ready == 2


def test_settings_survive_the_way_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("[]")
    settings = load_settings(changed(dataset__path="d.json"), base_dir=tmp_path, environ={})
    again = RunSettings.model_validate_json(settings.model_dump_json(by_alias=True))
    assert again == settings
    assert config_hash(again) == config_hash(settings)


def test_the_hash_tells_configurations_apart() -> None:
    one, other = (load_settings(changed(strategy__seed=seed), environ={}) for seed in (0, 1))
    assert config_hash(one) != config_hash(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    section=st.sampled_from(["model", "servers", "scenario", "strategy", "dataset", "client", "mode"]),
    key=st.sampled_from(
        ["urls", "headers", "formats", "sampling", "_target_", "path", "workers", "limits", "x"]
    ),
    value=JSON,
)
def test_whatever_is_written_ends_in_settings_or_in_lines_of_text(section: str, key: str, value: Any) -> None:
    raw = changed()
    if section == "mode":
        raw["mode"] = value
    else:
        raw.setdefault(section, {})[key] = value
    problems: tuple[str, ...] = ()
    try:
        load_settings(raw, environ={})
    except ConfigError as error:
        problems = error.problems or ("an error without a problem",)
    assert all(": " in problem for problem in problems)
