"""`python -m app`, and the command `scaimind-gateway` of an installation."""

import os
import signal
import sys
from typing import NoReturn

_REMEDY = (
    "Use scripts/run in the project's folder, which sets everything up, "
    "or the Python that it has set up: .venv/bin/python -m app"
)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> NoReturn:
    """Run the command line. Exits with its status."""
    if os.getpid() == 1:
        # The first process of a container is sent no signal that it does not
        # handle: asked to stop while it is still starting, it would not.
        signal.signal(signal.SIGTERM, _exit)
    if sys.version_info < (3, 11):  # noqa: UP036  # whoever calls another Python gets a line
        sys.exit(f"Error: Python 3.11 or newer is needed, and {sys.executable} is older. {_REMEDY}")
    try:
        from app.cli.invocation import program_name
        from app.cli.main import main as run

        run(prog_name=program_name(os.environ, sys.argv))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("app", "generated"):
            raise
        sys.exit(f"Error: {sys.executable} lacks the package {error.name}. {_REMEDY}")
    sys.exit()


if __name__ == "__main__":
    main()
