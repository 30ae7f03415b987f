"""What a reader of the result should know of how a run was set up."""

from __future__ import annotations

from lbrun.build.formats import left_out, payload_kind
from lbrun.build.samples import ids_are_unchecked
from lbrun.config import RunSettings
from lbrun.formats.api import RequestFormat
from lbrun.redaction import Redactor


def notes(settings: RunSettings, fmt: RequestFormat) -> list[str]:
    """What a reader of the result should know of how samples were asked and answers read."""
    found = []
    values = settings.loadgen_values
    if (
        settings.scenario.loadgen == "Offline"
        and settings.mode == "performance"
        and not settings.trial
        and values.target_qps is None
        and settings.scenario.user_conf is None
        and settings.scenario.audit_conf is None
    ):
        found.append(
            "scenario.target_qps is not set: LoadGen expects 1 sample/s then, and a faster pool may be done "
            "before the minimum duration, which is INVALID; set it to the samples/s that you expect"
        )
    if settings.servers.backend == "sglang" and ids_are_unchecked(settings, fmt):
        found.append(
            "the token ids of the data are not checked, since model.vocab_size is null and SGLang does not "
            "tell: an id outside the vocabulary ends an SGLang server"
        )
    unsent = left_out(fmt)
    if unsent:
        found.append(
            f"not sent, since servers.backend={settings.servers.backend} does not take them: "
            f"{', '.join(unsent)} (model.extra_body sends what your server knows)"
        )
    if settings.model.tokenizer is not None and payload_kind(settings) == "token_ids":
        found.append(
            "where a server returned no token ids, its text was encoded again by "
            f"{settings.model.tokenizer.name} (model.tokenizer)"
        )
    return found


def secret_notes(redactor: Redactor) -> list[str]:
    """Which secrets cannot be searched for in what servers say."""
    return [
        f"the secret value of the header {name} is too short to be told from ordinary text: where a server "
        "quotes it, it is masked only beside the header's name"
        for name in redactor.too_short()
    ]
