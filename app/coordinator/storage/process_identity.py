"""Identifies a process across reuse of its id: boot id and start time."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_boot_id() -> str:
    """What tells this start of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def process_identity(pid: int) -> dict[str, Any]:
    """What tells a process from every other that had or will have its number.

    Raises FileNotFoundError or ProcessLookupError if there is no such process.
    """
    ticks = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
    return {"pid": pid, "started": f"{read_boot_id()}/{int(ticks)}"}


def living_marks(pids: Iterable[int]) -> list[dict[str, Any]]:
    """Return the marks of those processes that are there; one may exit at any moment."""
    found = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append(process_identity(pid))
    return found


def open_process(mark: dict[str, Any]) -> int | None:
    """A pidfd of the process that `process_identity` told of; None if it is gone."""
    try:
        pidfd = os.pidfd_open(mark["pid"])
    except ProcessLookupError:
        return None
    try:
        same = process_identity(mark["pid"]).items() <= mark.items()
    except (FileNotFoundError, ProcessLookupError):
        same = False
    if not same:
        os.close(pidfd)
        return None
    return pidfd
