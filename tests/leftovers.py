"""Names what a run of the tests leaves in the machine's temporary folders.

It fails nothing: another run on the same machine may have made it.
"""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

_FOLDERS: Final = (Path("/tmp"), Path("/dev/shm"))
#: What the project's programs, and those that tests start, call what is theirs there.
_OURS: Final = re.compile(
    r"(?:scaimind-|b-|org\.chromium\.|faketime_shm_|sem\.faketime_|PostgreSQL\.|tmp).*"
)
_BEGAN: Final = pytest.StashKey[float]()


def left_behind(folders: Iterable[Path], *, since: float) -> list[str]:
    """Return what of such names was made since then, in seconds since 1970."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            continue
        for each in folder.iterdir():
            try:
                # What is written to later has a later time than when it was made.
                made = each.lstat().st_ctime
            except FileNotFoundError:
                continue
            if _OURS.fullmatch(each.name) and made >= since:
                found.append(str(each))
    return sorted(found)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note when it began."""
    session.config.stash[_BEGAN] = time.time()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what is there now."""
    for path in left_behind(_FOLDERS, since=config.stash[_BEGAN]):
        terminalreporter.write_line(f"left behind, by this or another run of the tests: {path}")
