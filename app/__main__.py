"""`python -m app`, and the command `scaimind-gateway` of an installation."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> NoReturn:
    """Run the command line. Exits with its status."""
    if os.getpid() == 1:
        # The first process of a container is sent no signal that it does not
        # handle: asked to stop while it is still starting, it would not.
        signal.signal(signal.SIGTERM, _exit)
    from app.cli.main import main as run

    called = Path(sys.argv[0]).name
    run(prog_name="python -m app" if called == "__main__.py" else called)
    sys.exit()


if __name__ == "__main__":
    main()
