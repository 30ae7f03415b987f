"""Entry of the process in which one LoadGen test happens: ``python -m lbrun.run.child FD LEDGER_FD``.

FD is this end of the channel, LEDGER_FD the memory of `lbrun.run.ledger`. The first message says what to run.
Standard output and error go to the run's log. Exit status 0: the outcome was reported, whatever it is.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from lbrun.errors import LbrunError
from lbrun.lifeline import wake_with_parents_end
from lbrun.redaction.streams import GuardedOutput
from lbrun.run.channel import Channel, Message


def main() -> None:
    """Run the test that the parent asks for, report, and end the process."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    # the parent decides what a Ctrl-C means, and says so over the channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_with_parents_end()  # a stopped child of a killed parent would stay for ever
    order = _first_message(channel)
    if order is None:
        os._exit(1)
    sys.path[:] = order["sys_path"]
    os.chdir(order["cwd"])
    output = GuardedOutput()
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    faulthandler.enable()  # the stack of a process that LoadGen or a library ended, in lbrun.log
    status = 0
    try:
        from lbrun.config import RunSettings
        from lbrun.config.secrets import make_redactor
        from lbrun.run.ledger import Ledger
        from lbrun.run.session import run_session
        from lbrun.transport import raise_descriptor_limit

        raise_descriptor_limit()
        settings = RunSettings.model_validate_json(order["settings"], context={"base_dir": order["cwd"]})
        redactor = make_redactor(settings.servers, os.environ)
        output.use(redactor.redact)
        channel.redact = redactor.redact_all

        def report(outcome: dict[str, Any]) -> None:
            channel.send({"type": "outcome", **outcome}, must=True)

        ledger = Ledger(int(sys.argv[2]))
        run_dir, base_dir = Path(order["run_dir"]), Path(order["cwd"])
        run_session(settings, order["urls"], run_dir, base_dir, channel, ledger, report, redactor)
    except LbrunError as error:
        channel.send(
            {"type": "error", "status": error.exit_status, "lines": str(error).splitlines()}, must=True
        )
    except BaseException as error:
        logging.getLogger("lbrun.run").exception("the test's process broke")
        channel.send(
            {"type": "error", "status": 1, "lines": [f"{type(error).__name__}: {error}"], "bug": True},
            must=True,
        )
        status = 1
    logging.shutdown()
    output.finish()
    # LoadGen's thread may still wait for a test that was broken off, and nothing can end it
    os._exit(status)


def _first_message(channel: Channel) -> Message | None:
    while not channel.closed:
        select.select([channel], [], [])
        messages = channel.receive()
        if messages:
            # a Ctrl-C may have come by now: it is for the session
            channel.put_back(messages[1:])
            return messages[0]
    return None


if __name__ == "__main__":
    main()
