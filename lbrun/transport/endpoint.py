"""Where requests go: a server's address, and the bytes that each request to it begins with."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

import lbrun
from lbrun.errors import ConfigError
from lbrun.redaction import Redactor, Secret

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a field name, RFC 9110 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 5.5, as Latin-1
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")  # RFC 3986 3.3
_DEFAULT_PORT = {"http": 80, "https": 443}

_FRAMING = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that the transport itself answers for; another value would break the framing."""

_SECRET_NAME = re.compile(r"auth|cookie|key|password|secret|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server, as the transport needs it.

    url: the base URL, without credentials, trailing slash and ``/v1``; fit to be shown. host: a name or an IP
    address without brackets. head: request line and headers, up to and including ``Content-Length: ``; what
    follows is the length, an empty line and the body. redactor: of what must not appear in any message.
    has_request_id: the headers have an X-Request-Id of the user's.
    """

    url: str
    host: str
    port: int
    tls: bool
    head: bytes = field(repr=False)
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    has_request_id: bool = False

    def redact(self, text: str) -> str:
        """The text without secrets: servers like to quote a key that they refuse."""
        return self.redactor.redact(text)


def make_endpoint(
    url: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
    redactor: Redactor | None = None,
    key: str = "servers.urls",
) -> Endpoint:
    """Prepare the requests to one server.

    url: ``http[s]://host[:port][/prefix]``; a trailing slash or ``/v1`` is folded away, since `path`, e.g.
    ``/v1/completions``, begins with it. headers: sent with each request besides the transport's own;
    User-Agent and Accept may be replaced. api_key: sent as a bearer token. redactor: one for all endpoints of
    a run; by default it knows the key, and headers whose names sound secret. key: the configuration key that
    errors are reported under.

    Raises ConfigError, with all problems at once, for what is no such URL and for names and values that
    could smuggle in another header or request. No message quotes a secret.
    """
    parts = _split(url, key)
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORT[parts.scheme]
    shown_host = f"[{host}]" if ":" in host else host
    authority = shown_host if port == _DEFAULT_PORT[parts.scheme] else f"{shown_host}:{port}"
    if not path.startswith("/") or not _PATH.fullmatch(path):
        raise ConfigError(f"{key}: {path!r} is no path to send requests to; write one like /v1/completions")

    extra = dict(headers or {})
    problems = list(_header_problems(extra, api_key))
    if problems:
        raise ConfigError(problems)
    lines = {
        "host": f"Host: {authority}",
        "user-agent": f"User-Agent: lbrun/{lbrun.__version__}",
        "accept": "Accept: application/json, text/event-stream",
        "accept-encoding": "Accept-Encoding: identity",
        "content-type": "Content-Type: application/json",
    }
    if api_key is not None:
        lines["authorization"] = f"Authorization: Bearer {api_key}"
    for name, value in extra.items():
        lines[name.lower()] = f"{name}: {value.strip()}"
    if redactor is None:
        secrets = [Secret(name, value) for name, value in extra.items() if _SECRET_NAME.search(name)]
        redactor = Redactor([Secret("Authorization", api_key or ""), *secrets])
    head = "\r\n".join((f"POST {prefix}{path} HTTP/1.1", *lines.values(), "Content-Length: "))
    return Endpoint(
        url=f"{parts.scheme}://{authority}{prefix}",
        host=host,
        port=port,
        tls=parts.scheme == "https",
        head=head.encode("latin-1"),
        redactor=redactor,
        has_request_id="x-request-id" in lines,
    )


def make_ssl_context(ca_file: str | None = None) -> ssl.SSLContext:
    """The context for all TLS connections: certificates and host names are always verified.

    ca_file: PEM file of the authorities to trust instead of the system's. Raises ConfigError if unusable.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = (
            error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "no PEM certificate"
        )
        raise ConfigError(
            f"servers.ca_file: {ca_file!r}: {reason}; name a PEM file of certificates"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _split(url: str, key: str) -> SplitResult:
    example = "write one like http://127.0.0.1:8000"
    if not _VISIBLE.fullmatch(url):
        raise ConfigError(f"{key}: {_safe(url)} has a blank or a character outside ASCII in it; {example}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{key}: {_safe(url)} is no URL; {example}") from None
    if "@" in parts.netloc:
        raise ConfigError(
            f"{key}: the URL of {parts.hostname} has a user or password in it; keep secrets in environment "
            "variables and name one in servers.api_key_env"
        )
    if parts.scheme not in _DEFAULT_PORT or not parts.hostname:
        raise ConfigError(
            f"{key}: {_safe(url)} does not begin with http:// or https:// and a host; {example}"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigError(f"{key}: {_safe(url)} has a query or fragment; {example}")
    if port == 0:
        raise ConfigError(f"{key}: {_safe(url)} has port 0; {example}")
    if not _is_host(parts.hostname) or not _PATH.fullmatch(parts.path):
        raise ConfigError(f"{key}: {_safe(url)} has a host or path that no server can have; {example}")
    return parts


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return "%" not in host
    return _HOST.fullmatch(host) is not None


def _safe(url: str) -> str:
    """The URL as a message may show it: without what could be credentials."""
    before, at, after = url.rpartition("@")
    if not at:
        return repr(url)
    scheme, separator, _ = before.partition("://")
    return repr(f"{scheme}://***@{after}" if separator else f"***@{after}")


def _header_problems(headers: Mapping[str, str], api_key: str | None) -> Iterator[str]:
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            yield f"servers.headers: {name!r} is no header name; use letters, digits and hyphens"
        elif lower in _FRAMING:
            yield f"servers.headers.{name}: is set by the HTTP client itself; remove it"
        elif lower in seen:
            yield f"servers.headers.{name}: is there twice; names differ by more than case"
        elif lower == "authorization" and api_key is not None:
            yield f"servers.headers.{name}: conflicts with servers.api_key_env; set one of the two"
        elif not _FIELD_VALUE.fullmatch(value):
            yield (
                f"servers.headers.{name}: the value has a line break, a control character or one outside "
                "Latin-1 in it; remove it"
            )
        seen.add(lower)
    if api_key is not None and not _VISIBLE.fullmatch(api_key):
        yield (
            "servers.api_key_env: the key in that variable is empty or has a blank, a line break or a "
            "character outside ASCII in it; set the variable to the bare key"
        )
