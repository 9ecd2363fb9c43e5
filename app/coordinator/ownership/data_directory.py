"""One coordinator for a data directory, or several that share it.

A lock on it says which: those that share it hold it together.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Seconds for which another coordinator's end is waited for.
_LOCK_PATIENCE: Final = 3.0


def sole_owner(config: CoordinatorConfig) -> AbstractContextManager[None]:
    """Hold the data directory. Raises BadConfig if it cannot be written or is held already."""
    return _owner(config, fcntl.LOCK_EX)


def shared_owner(config: CoordinatorConfig) -> AbstractContextManager[None]:
    """Hold the data directory with others. Raises BadConfig if it cannot be written, or one
    coordinator has it for itself."""
    return _owner(config, fcntl.LOCK_SH)


@contextmanager
def _owner(config: CoordinatorConfig, kind: int) -> Iterator[None]:
    try:
        for path in (config.data_dir, config.drive_root):
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(0, "it is not writable")
        file = os.open(config.data_dir / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        raise BadConfig(
            f"SCAIMIND_COORDINATOR_DATA_DIR: {config.data_dir}: {error.strerror}"
        ) from None
    try:
        if not _locked(file, kind):
            raise BadConfig(
                f"SCAIMIND_COORDINATOR_DATA_DIR: another coordinator is using {config.data_dir}"
            )
        yield
    finally:
        os.close(file)


def _locked(file: int, kind: int) -> bool:
    """Lock a file, waiting a little for who has it.

    A program that a killed coordinator was just starting has its lock, too,
    until it has replaced the copy of the coordinator that it began as.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
