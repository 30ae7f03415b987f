"""Base URLs of servers: which are accepted, and what is said of those that are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from lbrun.config.base import problem

LIST_FORM = "'servers.urls=[http://a:8000,http://b:8000]'"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_IPV6 = re.compile(r"\[[0-9a-fA-F:.]+\]")
_MANGLED_SCHEME = re.compile(r"^(?:https?(?=:?/))?[:/]*", re.I)  # http:/a, https//a, //a
_ENDPOINT = re.compile(r"(?:/v1)?/(?:(?:chat/)?completions|models)$|/(?:generate|health|metrics)$")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def check_list(value: Any) -> Any:
    """Refuse what is no list, and show how the same servers are written as one."""
    if isinstance(value, str):
        several = "," in value
        what = "several URLs in one string" if several else "one URL without brackets"
        raise problem(what, f"write a list: {list_form(value)}")
    return value


def check_url(value: Any) -> str:
    """One server's base URL, without the trailing slash. Raises pydantic's error for a wrong one.

    A base URL is scheme, host, port and perhaps a path; what could carry a secret (a user, a password, a
    query) is refused without being repeated.
    """
    if not isinstance(value, str):
        raise problem(f"{value!r} is not a URL", f"write {LIST_FORM}")
    if "@" in value:
        raise problem(
            "a URL with a user or password is not allowed",
            "leave them out and name the environment variable that holds the key: servers.api_key_env=NAME",
        )
    if "," in value:
        raise problem("several URLs in one string", f"write a list: {list_form(value)}")
    if not value or _UNPRINTABLE.search(value):
        raise problem(f"{value!r} is not a URL", f"write {LIST_FORM}")
    if not _SCHEME.match(value):
        raise problem(f"{value!r} has no scheme", f"write http://{_MANGLED_SCHEME.sub('', value)}")
    parts = urlsplit_or_none(value)
    if parts is None or not parts.hostname or not _is_host(parts.netloc):
        raise problem(f"{_without_query(value)!r} is not a URL", f"write {LIST_FORM}")
    if parts.scheme not in _DEFAULT_PORTS:
        raise problem(f"{parts.scheme!r} is not a scheme that lbrun speaks", "write http:// or https://")
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise problem(
            f"{_without_query(value)!r} goes on with a query or a fragment",
            "write the server's base URL only",
        )
    if not _has_port(parts):
        raise problem(f"{value!r} has no usable port", "write a port from 1 to 65535, or none")
    base = value.rstrip("/")
    if endpoint := _ENDPOINT.search(parts.path.rstrip("/")):
        raise problem(
            f"{value!r} ends with the path of one kind of request",
            f"write the server's base URL: {base.removesuffix(endpoint[0])}",
        )
    return base


def canonical(url: str) -> str:
    """Equal for two accepted URLs that lead to the same server."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _DEFAULT_PORTS[parts.scheme]}{path}"


def list_form(text: str) -> str:
    """How the URLs of a comma-separated string are written as a list on the command line."""
    parts = [part.strip().strip("[]'\"") for part in text.split(",")]
    usable = [part for part in parts if part and "@" not in part and not _UNPRINTABLE.search(part)]
    if len(usable) != len(parts):
        return LIST_FORM
    return _command_line([part if "://" in part else f"http://{part}" for part in usable])


def _command_line(urls: Sequence[str]) -> str:
    return f"'servers.urls=[{','.join(urls)}]'"


def urlsplit_or_none(url: str) -> SplitResult | None:
    """The parts of a URL; None where its brackets do not match."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _is_host(netloc: str) -> bool:
    if netloc.startswith("["):
        return _IPV6.match(netloc) is not None
    return re.fullmatch(r"[A-Za-z0-9._-]+(:.*)?", netloc) is not None


def _has_port(parts: SplitResult) -> bool:
    if parts.netloc.endswith(":"):
        return False
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _without_query(url: str) -> str:
    return re.split(r"[?#]", url, maxsplit=1)[0]
