"""What must hold between keys. Each check names all keys it looks at, so that it is left out where one of
them is wrong by itself: a problem is then told once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

from lbrun.config.problems import Problem, near
from lbrun.config.schema import RunSettings
from lbrun.config.secrets import make_redactor, texts, variables
from lbrun.config.strategy import BUILT_IN
from lbrun.config.urls import LIST_FORM, canonical
from lbrun.embedded.faults import parse_fault

Check = Callable[[RunSettings, Mapping[str, str]], Iterator[Problem]]

_TYPICAL_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_SECRET_HEADER = re.compile(r"authori[sz]ation|cookie|token|secret|password|api[-_]?key|credential", re.I)
_PLACEHOLDERS = {"title", "description", "categories"}


def _pool(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    servers = s.servers
    if not servers.urls and servers.embedded is None:
        yield Problem(("servers.urls",), f"the pool has no servers; write {LIST_FORM}, or servers=embedded")
    first: dict[str, int] = {}
    for i, url in enumerate(servers.urls):
        at = first.setdefault(canonical(url), i)
        if at != i:
            yield Problem(
                (f"servers.urls[{i}]", "servers.urls"),
                f"{url!r} is the same server as servers.urls[{at}]; name each server once",
            )
    n = servers.n_servers
    if n and servers.min_ready > n:
        yield Problem(
            ("servers.min_ready", "servers.urls", "servers.embedded.count"),
            f"{servers.min_ready} is more than the pool has; write at most {n}",
        )
    if n and servers.weights is not None and len(servers.weights) != n:
        yield Problem(
            ("servers.weights", "servers.urls", "servers.embedded.count"),
            f"{len(servers.weights)} weights for {n} servers; write one for each, in their order",
        )


def _embedded(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    embedded = s.servers.embedded
    if embedded is None:
        if s.servers.faults:
            yield Problem(
                ("servers.faults",),
                "only embedded servers fail at will; leave it out, or write servers=embedded",
            )
        return
    if len(embedded.speeds) > embedded.count:
        yield Problem(
            ("servers.embedded.speeds", "servers.embedded.count"),
            f"{len(embedded.speeds)} speeds for {embedded.count} servers; write at most one for each server",
        )
    for i, text in enumerate(s.servers.faults):
        server = parse_fault(text).server
        if server >= embedded.count:
            yield Problem(
                (f"servers.faults[{i}]", "servers.faults", "servers.embedded.count"),
                f"there is no server {server}; write one from 0 to {embedded.count - 1}",
            )
    if s.servers.backend == "openai":
        yield Problem(
            ("servers.backend",), "embedded servers speak vllm or sglang; write servers.backend=vllm"
        )
    if s.servers.api_key_env or s.servers.ca_file:
        key = "servers.api_key_env" if s.servers.api_key_env else "servers.ca_file"
        yield Problem((key,), f"embedded servers have no use for it; name your servers: {LIST_FORM}")


def _backoff(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    health, retry = s.servers.health, s.servers.retry
    if health.backoff_cap_s < health.backoff_base_s:
        yield Problem(
            ("servers.health.backoff_cap_s", "servers.health.backoff_base_s"),
            f"{health.backoff_cap_s:g} is below servers.health.backoff_base_s; "
            f"write at least {health.backoff_base_s:g} (seconds)",
        )
    if retry.wait_cap_ms < retry.wait_base_ms:
        yield Problem(
            ("servers.retry.wait_cap_ms", "servers.retry.wait_base_ms"),
            f"{retry.wait_cap_ms:g} is below servers.retry.wait_base_ms; "
            f"write at least {retry.wait_base_ms:g} (milliseconds)",
        )


def _secrets(s: RunSettings, environ: Mapping[str, str]) -> Iterator[Problem]:
    servers = s.servers
    variables = {"servers.api_key_env": servers.api_key_env}
    variables |= {f"servers.headers_env.{name}": variable for name, variable in servers.headers_env.items()}
    for key, variable in variables.items():
        if variable is None or environ.get(variable):
            continue
        # Many API keys are well-formed variable names. What does not look like one is not repeated.
        named = f"variable {variable}" if _TYPICAL_VARIABLE.fullmatch(variable) else "variable that it names"
        yield Problem((key,), f"the environment {named} is not set; export it before the run")
    for name in servers.headers:
        if _SECRET_HEADER.search(name):
            bearer = name.lower() == "authorization"
            yield Problem(
                (f"servers.headers.{name}", "servers.headers"),
                "secrets stay out of the configuration; put the value into an environment variable and "
                f"write {'servers.api_key_env=NAME' if bearer else f'+servers.headers_env.{name}=NAME'}",
            )
    seen: dict[str, str] = {}
    for section, names in (("headers", servers.headers), ("headers_env", servers.headers_env)):
        for name in names:
            key = f"servers.{section}.{name}"
            other = seen.setdefault(name.lower(), key)
            if other != key:
                yield Problem((key, other), f"the header is set by {other} too; set it once")
    if servers.api_key_env and "authorization" in seen:
        yield Problem(
            (seen["authorization"], "servers.api_key_env"),
            "servers.api_key_env sends this header already; leave one of them out",
        )


def _pasted(s: RunSettings, environ: Mapping[str, str]) -> Iterator[Problem]:
    """The value of a secret that the configuration holds besides its variable's name: it would be written."""
    redactor, named = make_redactor(s.servers, environ), variables(s.servers)
    for key, text in texts(s.model_dump(mode="json", by_alias=True)):
        header = redactor.holds(text)
        if header is not None:
            variable = named[header]
            shown = variable if _TYPICAL_VARIABLE.fullmatch(variable) else "that variable"
            yield Problem(
                (key,),
                f"the value of the environment variable {shown} is in it, which is secret, and the "
                "configuration is written into the run's files; leave it out here",
            )


def _model(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    model = s.model
    wanted = model.request_format or model.formats.get(s.servers.backend)
    if wanted is None:
        yield Problem(
            ("model.request_format", "model.formats", "servers.backend"),
            f"model.formats has nothing for servers.backend={s.servers.backend}; "
            "write model.request_format=completions, or another",
        )
    if wanted == "sglang_generate" and s.servers.backend != "sglang":
        yield Problem(
            ("model.request_format", "servers.backend"),
            f"sglang_generate is SGLang's own, and servers.backend is {s.servers.backend}; "
            "write model.request_format=completions, or servers.backend=sglang",
        )
    for section in ("sampling", "sampling_accuracy"):
        sampling = getattr(model, section)
        low, high = sampling.min_tokens, sampling.max_tokens
        if low is not None and high is not None and low > high:
            yield Problem(
                (f"model.{section}.min_tokens", f"model.{section}.max_tokens"),
                f"{low} is more than max_tokens; write at most {high}",
            )
    if s.dataset.path is None and model.bundled_data is None:
        yield Problem(
            ("dataset.path",), f"lbrun has no sample data for {model.name}; write dataset.path=./data.json"
        )
    if model.chat.template_file is None:
        used = set(re.findall(r"\{(\w+)\}", model.chat.template))
        for name in sorted(used - _PLACEHOLDERS):
            yield Problem(
                ("model.chat.template",),
                f"{{{name}}} is not a field of a product; use {{title}}, {{description}}, {{categories}}",
            )


def _scenario(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    scenario, values = s.scenario, s.loadgen_values
    loadgen = "Offline" if scenario.name == "offline" else "Server"
    if scenario.loadgen != loadgen:
        yield Problem(
            ("scenario.loadgen", "scenario.name"),
            f"scenario {scenario.name} is LoadGen's {loadgen}; write scenario.loadgen={loadgen}",
        )
    if loadgen == "Server" and values.target_qps is None and scenario.user_conf is None:
        yield Problem(
            ("scenario.target_qps", "scenario.trial.target_qps"),
            "it is not set, and there is no rate that fits every pool; write e.g. scenario.target_qps=20 "
            "(queries per second)",
        )
    for kind, unit in (("duration_s", " (seconds)"), ("query_count", "")):
        low, high = getattr(values, f"min_{kind}"), getattr(values, f"max_{kind}")
        if low is not None and high is not None and low > high:
            section = "scenario" if getattr(scenario, f"max_{kind}") is not None else "scenario.trial"
            yield Problem(
                (f"{section}.max_{kind}", f"scenario.min_{kind}", f"scenario.trial.min_{kind}"),
                f"{high:g} is less than the minimum; write at least {low:g}{unit}",
            )
    if scenario.name == "interactive" and not s.model.mlperf_name_interactive and not _has_limit(s):
        yield Problem(
            ("model.mlperf_name_interactive", "scenario.latency_limit_ms", "model.limits"),
            f"{s.model.name} has no interactive limits in mlperf.conf; write scenario.latency_limit_ms=... "
            "(milliseconds), or another scenario",
        )


def _has_limit(s: RunSettings) -> bool:
    values = s.loadgen_values
    return any((values.ttft_limit_ms, values.tpot_limit_ms, values.latency_limit_ms))


def _strategy(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    strategy = s.strategy
    if strategy.target is None:
        if strategy.name not in BUILT_IN:
            yield Problem(
                ("strategy.name", "strategy._target_"),
                f"{strategy.name!r} is not a built-in strategy; choose one of {', '.join(BUILT_IN)}, "
                f"or name your own class by strategy._target_{near(strategy.name, BUILT_IN)}",
            )
        return
    if not any(strategy.target.startswith(package + ".") for package in s.allowed_packages):
        package = strategy.target.split(".", 1)[0]
        allowed = ",".join((*s.allowed_packages, package))
        yield Problem(
            ("strategy._target_", "allowed_packages"),
            f"{strategy.target} is not in an allowed package; write 'allowed_packages=[{allowed}]'",
        )


def _client(s: RunSettings, _: Mapping[str, str]) -> Iterator[Problem]:
    too_many = [cpu for cpu in s.client.cpus if cpu not in os.sched_getaffinity(0)]
    if too_many:
        usable = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        yield Problem(("client.cpus",), f"there is no usable processor {too_many[0]}; write some of {usable}")


CHECKS: tuple[Check, ...] = (
    _model,
    _pool,
    _embedded,
    _backoff,
    _secrets,
    _pasted,
    _scenario,
    _strategy,
    _client,
)
