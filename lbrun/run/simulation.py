"""The embedded servers of a run, from the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from lbrun.config import RunSettings
from lbrun.config.secrets import variables, without_secrets
from lbrun.embedded.faults import parse_fault
from lbrun.embedded.pool import EmbeddedPool
from lbrun.embedded.settings import EmbeddedSettings


def embedded_pool(settings: RunSettings, log_dir: Path) -> EmbeddedPool | None:
    """The simulated servers, not started yet; None for a pool of real ones. Raises ConfigError."""
    embedded = settings.servers.embedded
    if embedded is None:
        return None
    return EmbeddedPool(
        EmbeddedSettings(
            backend=settings.servers.backend,
            model=settings.served_model,
            vocab_size=settings.model.vocab_size or EmbeddedSettings.vocab_size,
            count=embedded.count,
            speeds=embedded.speeds,
            slots=embedded.slots,
            ttft_base_ms=embedded.ttft_base_ms,
            ttft_per_token_us=embedded.ttft_per_token_us,
            tpot_ms=embedded.tpot_ms,
            jitter=embedded.jitter,
            output_tokens_mean=embedded.output_tokens_mean,
            max_model_len=embedded.max_model_len,
            seed=embedded.seed,
            faults=tuple(parse_fault(text) for text in settings.servers.faults),
        ),
        log_dir,
        environ=without_secrets(os.environ, variables(settings.servers)),
    )
