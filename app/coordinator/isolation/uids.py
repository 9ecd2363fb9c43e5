"""User ids for jobs, one for each run that goes on.

Who holds which is in a directory: a file for each id names the run's directory.
It is free again when that run has left its end behind, and so nothing that runs.
Coordinators on one machine may have the same range: an id is locked besides, see
`uid_locks`, and nothing is done to the processes of one that another holds.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.coordinator.isolation.ending.user_processes import end_all_of, pids_of
from app.coordinator.isolation.uid_locks import UidLock, hold
from app.files.json_files import read_json, write_json

#: In the place of a run's directory: no run has this name.
_NO_RUN: Final = "none"
#: Seconds for the kernel to end what was killed.
_KILLED: Final = 1.0


class NoUid(OSError):
    """Every user id of the range is in use."""

    def __init__(self) -> None:
        super().__init__(11, "every user id for jobs is in use (setting job_uids)")


@dataclass(frozen=True, slots=True)
class _Taken:
    """An id on its way to a run."""

    run: Path
    lock: UidLock


class JobUids:
    """The ids of a range. Owned by one coordinator. Blocks shortly. Safe to use from several
    threads."""

    def __init__(self, directory: Path, uids: range) -> None:
        """Raises OSError."""
        self._directory = directory
        self._uids = uids
        self._lock = threading.Lock()
        #: The ids that were taken and not passed on yet.
        self._taken: dict[int, _Taken] = {}
        directory.mkdir(mode=0o700, exist_ok=True)

    def take(self, run: Path) -> int:
        """An id for a run that has not begun: the job's last one, if that is free.

        It is held until `pass_on`. Raises NoUid, OSError.
        """
        with self._lock:
            return self._take(run)

    @contextmanager
    def pass_on(self, uid: int) -> Iterator[tuple[int, ...]]:
        """The descriptors that hold an id that was taken, for the process that is to hold it from
        then on."""
        with self._lock:
            taken = self._taken.get(uid)
        try:
            yield taken.lock.files if taken is not None else ()
        finally:
            self._let_go(uid)

    def give_up(self, run: Path) -> None:
        """Free what was taken for a run that did not begin. Its job's next run gets it first.

        Raises OSError.
        """
        with self._lock:
            for uid, (holder, _) in self._held().items():
                if holder == run:
                    if (taken := self._taken.pop(uid, None)) is not None:
                        taken.lock.close()
                    # That run may have a directory by now, and never leaves an end there.
                    write_json(self._directory / str(uid), {"run": str(run.with_name(_NO_RUN))})

    def _let_go(self, uid: int) -> None:
        with self._lock:
            taken = self._taken.pop(uid, None)
        if taken is not None:
            taken.lock.close()

    def close(self) -> None:
        """Let go of what was taken and not passed on."""
        with self._lock:
            while self._taken:
                self._taken.popitem()[1].lock.close()

    def _take(self, run: Path) -> int:
        held = self._held()
        free = [
            uid
            for uid in self._uids
            if uid not in held or _is_over(held[uid][0], run, starts=uid in self._taken)
        ]
        # The job's last one: its files have that owner already. Else the one that was given
        # longest ago, so that what an ended job left seldom meets its number again.
        nobody = (Path(), 0)
        free.sort(
            key=lambda uid: (
                held.get(uid, nobody)[0].parent != run.parent,
                held.get(uid, nobody)[1],
                # Coordinators that begin with the same range at the same time seldom meet.
                random.random(),
            )
        )
        for uid in free:
            taken = self._taken.get(uid)
            lock = taken.lock if taken is not None else hold(uid)
            if lock is None:
                continue
            self._taken[uid] = _Taken(run, lock)
            if _is_free(uid):
                write_json(self._directory / str(uid), {"run": str(run)})
                return uid
            self._taken.pop(uid).lock.close()
        raise NoUid

    def _held(self) -> dict[int, tuple[Path, int]]:
        """The run that each id was given to last, and when, in nanoseconds."""
        held = {}
        for file in self._directory.iterdir():
            if file.name.isdigit() and (holder := _holder(file)) is not None:
                held[int(file.name)] = (holder, file.stat().st_mtime_ns)
        return held


def _holder(file: Path) -> Path | None:
    """The run that an id was given to; None if that is damaged on the disk. Raises OSError.

    Whether somebody has such an id its lock and its processes tell.
    """
    try:
        about = read_json(file)
        return None if about is None else Path(about["run"])
    except (ValueError, KeyError, TypeError):
        return None


def _is_over(held: Path, run: Path, *, starts: bool) -> bool:
    """Whether nothing runs of the run `held`, which may be `run` itself.

    One that `starts` need not have its directory yet.
    """
    if held == run or (held / "exit.json").exists():
        return True
    return not starts and not held.exists()


def _is_free(uid: int) -> bool:
    """Whether nothing runs under the id. Call with its lock held. Raises OSError."""
    # A run of a coordinator that had no locks stands still to be seen. What forks too fast for
    # that belongs to nobody any more.
    if pids_of(uid):
        return False
    return os.geteuid() != 0 or end_all_of(uid, patience=_KILLED)
