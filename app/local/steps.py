"""The program of a step of a start: `python -m app.local.steps STEP DATA_DIR ...`.

What a step imports, a database's driver or the packages of the client, would stay in the
supervisor's memory for as long as the stack runs. `starting.py` runs it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from app.configuration.section import SettingsError
from app.local.data_dir import CannotStart, DataDir
from app.local.starting import CANNOT_START
from app.undumpable import make_undumpable


def bootstrap(data_dir: DataDir, *options: str) -> None:
    """Prepare the database that the environment names; with `--own` that of the data directory's
    server, which may still be starting. Raises `CannotStart`, `SettingsError`."""
    from app.database.settings import DatabaseSettings
    from app.local.bootstrap import make_database, prepare
    from app.telemetry.logs import only_warnings

    only_warnings()
    dsn = DatabaseSettings.from_env(os.environ).dsn
    if "--own" in options:
        make_database(dsn, data_dir)
    prepare(dsn, data_dir, _tell, show_key="--show-key" in options)


def profile(data_dir: DataDir, url: str) -> None:
    """Write the profile of the stack that is served at `url`."""
    from app.local.profile import write_profile

    write_profile(url, data_dir, os.environ, _tell)


STEPS: Final[Mapping[str, Callable[..., None]]] = {"bootstrap": bootstrap, "profile": profile}


def main(name: str, root: str, *arguments: str) -> None:
    """Take a step. Exits with `CANNOT_START` for what a person can mend."""
    make_undumpable()
    data_dir = DataDir(Path(root))
    try:
        STEPS[name](data_dir, *arguments)
    except (CannotStart, SettingsError) as error:
        _exit(error)
    except OSError as error:
        if not data_dir.holds(error.filename):
            raise
        _exit(data_dir.not_usable(error))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _exit(error: Exception) -> None:
    sys.stderr.write(f"{error}\n")
    sys.exit(CANNOT_START)


if __name__ == "__main__":
    main(*sys.argv[1:])
