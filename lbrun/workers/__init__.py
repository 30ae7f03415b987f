"""Worker processes: the same attempt loop as `lbrun.transport`, on more cores.

The dispatcher stays where it is and sees one `lbrun.attempt.Worker`; attempts cross to the processes, and
what became of them comes back, as batches of fixed-size records. The prepared bodies are in one piece of
shared memory, and so exist once.

Every process is a fresh interpreter, never a fork. A fork of a process with threads (LoadGen's, the records'
writer, whatever a library has started) inherits locks that nobody will release, an event loop that is not its
own, and every descriptor; its reference counts would unshare the memory that it was to share; and it could
not be done once the run has begun, which is when a dead process has to be replaced.
"""

from lbrun.workers.bodies import SharedBodies
from lbrun.workers.pool import ProcessWorkers
from lbrun.workers.setup import WorkerSetup
from lbrun.workers.wire import Report

__all__ = ["ProcessWorkers", "Report", "SharedBodies", "WorkerSetup"]
