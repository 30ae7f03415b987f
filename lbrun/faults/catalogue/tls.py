"""Certificates that are wrong from the start, or become so."""

from __future__ import annotations

import importlib.util
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lbrun.faults.evidence import Evidence
from lbrun.faults.scenario import BACK_WITHIN_S, KILLED_OUT_WITHIN_S, Expected, Mode, Scenario
from lbrun.faults.stage import Stage
from lbrun.faults.tls_front import TlsFront

if TYPE_CHECKING:
    import trustme

_WITH_TWO_PROBES_S = KILLED_OUT_WITHIN_S + 1.0


def _no_trustme() -> str | None:
    return (
        None if importlib.util.find_spec("trustme") else "trustme, which makes certificates, is not installed"
    )


def _context(authority: trustme.CA, *, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.now(UTC) - timedelta(days=1) if expired else None
    authority.issue_cert("127.0.0.1", not_after=end).configure_cert(context)
    return context


def _authority(stage: Stage) -> tuple[trustme.CA, str]:
    """A fresh authority, and the override by which the run trusts it."""
    import trustme

    authority, path = trustme.CA(), stage.base / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, f"servers.ca_file={path}"


def _put_in_front(stage: Stage, *contexts: ssl.SSLContext) -> list[TlsFront]:
    fronts = []
    for url, context in zip(stage.servers.urls, contexts, strict=True):
        fronts.append(TlsFront(url, context))
        stage.on_end.append(fronts[-1].close)
    stage.urls = [front.url for front in fronts]
    return fronts


def _bad_from_the_start(stage: Stage) -> None:
    import trustme

    authority, trust = _authority(stage)
    _put_in_front(stage, _context(authority), _context(trustme.CA()), _context(authority, expired=True))
    stage.start(trust, slow=False)


def _expires(stage: Stage) -> None:
    authority, trust = _authority(stage)
    good = _context(authority)
    fronts = _put_in_front(stage, good, good, good)
    stage.start(trust)
    stage.until_busy(stage.VICTIM)
    stage.breaks(stage.VICTIM)
    fronts[stage.VICTIM].present(_context(authority, expired=True))
    stage.until_out(stage.VICTIM)
    fronts[stage.VICTIM].present(good)
    stage.mends(stage.VICTIM)
    stage.until_back(stage.VICTIM)


def _only_the_first(evidence: Evidence) -> list[str]:
    states = [server["state"] for server in evidence.result["servers"]]
    requests = [server["requests"] for server in evidence.result["servers"]]
    if states != ["ready", "excluded", "excluded"] or any(requests[1:]):
        return [f"servers are {states} with {requests} requests"]
    return []


SCENARIOS = (
    Scenario(
        name="tls_bad_certificates",
        about="over TLS: one server's certificate is good, one's is of a stranger, one's has expired",
        act=_bad_from_the_start,
        overrides=("servers.settle_s=1",),
        expected=Expected(says=("expired", "TLS")),
        modes=(Mode.OFFLINE,),
        samples=256,
        unless=_no_trustme,
        check=_only_the_first,
    ),
    Scenario(
        name="tls_certificate_expires",
        about="over TLS: one server shows an expired certificate in the middle of the run, then a good one",
        act=_expires,
        expected=Expected(out_within_s=_WITH_TWO_PROBES_S, back_within_s=BACK_WITHIN_S),
        unless=_no_trustme,
    ),
)
