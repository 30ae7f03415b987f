"""The secrets of a run, and places of the configuration that hold one by mistake."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lbrun.config.servers import ServersSettings
from lbrun.errors import ConfigError
from lbrun.redaction import Redactor, Secret


def variables(servers: ServersSettings) -> dict[str, str]:
    """The environment variables that hold secrets, by the header that carries each."""
    named = {"Authorization": servers.api_key_env} if servers.api_key_env else {}
    return {**named, **servers.headers_env}


def make_redactor(servers: ServersSettings, environ: Mapping[str, str]) -> Redactor:
    """For the values of ``servers.api_key_env`` and ``servers.headers_env``, whatever the headers' names."""
    secrets = [Secret(name, environ.get(variable, "")) for name, variable in variables(servers).items()]
    return Redactor(secrets, trusted=servers.urls)


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a plain configuration, with its key; names of variables are left out."""
    if key == "servers.api_key_env" or key.startswith("servers.headers_env"):
        return
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from texts(item, f"{key}[{i}]")


def check_overrides_hold_no_secret(servers: ServersSettings, overrides: Sequence[str]) -> None:
    """Raises ConfigError for overrides, Hydra's own among them, that hold the value of a secret."""
    redactor = make_redactor(servers, os.environ)
    problems = []
    for text in overrides:
        header = redactor.holds(text)
        if header is not None:
            key = redactor.redact(text.partition("=")[0])
            problems.append(
                f"{key}: the value for the header {header} is in it, which is secret; leave it out"
            )
    if problems:
        raise ConfigError(problems)


def without_secrets(environ: Mapping[str, str], servers_variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that has no use for them."""
    hidden = set(servers_variables.values())
    return {name: value for name, value in environ.items() if name not in hidden}
