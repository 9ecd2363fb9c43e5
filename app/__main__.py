"""`python -m app`."""

import os
import signal
import sys


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    if os.getpid() == 1:
        # The first process of a container is sent no signal that it does not
        # handle: asked to stop while it is still starting, it would not.
        signal.signal(signal.SIGTERM, _leave)
    from app.cli.main import main

    main(prog_name="python -m app")
