"""Worker processes: the same attempt loop as `lbrun.transport`, on more cores.

The dispatcher stays where it is and sees one `lbrun.attempt.Worker`; attempts cross to the processes, and
what became of them comes back, as batches of fixed-size records. Every process is a fresh interpreter
(never a fork of one with threads), and reads the prepared bodies from one shared piece of memory.
"""

from lbrun.workers.bodies import SharedBodies
from lbrun.workers.pool import ProcessWorkers
from lbrun.workers.setup import WorkerSetup

__all__ = ["ProcessWorkers", "SharedBodies", "WorkerSetup"]
