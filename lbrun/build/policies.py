"""The numbers by which a run retries, judges its servers, and spreads its work."""

from __future__ import annotations

import os

from lbrun.balance import HealthPolicy
from lbrun.config import RunSettings
from lbrun.dispatch.retry import RetryPolicy


def retry_policy(settings: RunSettings) -> RetryPolicy:
    """The dispatcher's policy."""
    servers, retry = settings.servers, settings.servers.retry
    return RetryPolicy(
        max_retries_per_server=servers.max_retries_per_server,
        wait_base_s=retry.wait_base_ms / 1000,
        wait_cap_s=retry.wait_cap_ms / 1000,
        grace_s=servers.grace_s,
        put_off_s=retry.put_off_s,
        budget_share=retry.budget_share,
        budget_per_s=retry.budget_per_s,
        paced=settings.max_in_flight is None,
        stop_on_bad_request=servers.on_bad_request == "stop",
    )


def health_policy(settings: RunSettings) -> HealthPolicy:
    """The numbers of server health."""
    servers, health = settings.servers, settings.servers.health
    return HealthPolicy(
        failures_in_a_row=health.failures_in_a_row,
        failure_share=health.failure_share,
        window_s=health.window_s,
        window_min=health.window_min,
        stall_s=health.stall_s,
        probe_interval_s=health.probe_interval_s,
        ready_timeout_s=servers.ready_timeout_s,
        backoff_base_s=health.backoff_base_s,
        backoff_cap_s=health.backoff_cap_s,
        ramp_s=health.ramp_s,
        recovery=servers.recovery == "probe",
        late_join=settings.late_join,
    )


def n_workers(settings: RunSettings) -> int:
    """Worker processes; 0: attempts are carried out inside the test's own process.

    auto: none on fewer than 4 usable cores, where they would only compete with the rest, else half of the
    cores, at most 8.
    """
    workers = settings.client.workers
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0))
    return 0 if cores < 4 else min(8, cores // 2)
