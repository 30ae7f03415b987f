"""Every scenario, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from lbrun.faults.catalogue import answers, client, lies, network, processes, statuses, tls
from lbrun.faults.scenario import Scenario

CATALOGUE: Sequence[Scenario] = (
    *processes.SCENARIOS,
    *answers.SCENARIOS,
    *lies.SCENARIOS,
    *statuses.SCENARIOS,
    *tls.SCENARIOS,
    *network.SCENARIOS,
    *client.SCENARIOS,
)
