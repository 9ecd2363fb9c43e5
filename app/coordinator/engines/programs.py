"""The boundary to whatever runs a helper program for a job: apart, as the job itself will be.

Not a run: it has no log, no ranks and no number, and whoever asks for it waits
for it. It ends with the coordinator.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpec:
    """A program and what it may touch. Paths are absolute."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    #: A directory that is there as long as the program runs; no two programs share one.
    place: Path
    #: Directories that it may write; what is in them is the caller's again at the end.
    writable: tuple[Path, ...]
    #: Its `/tmp` and its home, which it may write as well.
    temporary: Path
    #: What it may read besides the system and this Python.
    readable: tuple[Path, ...] = ()
    #: Whether it has the machine's network. It may have it all the same where nothing can take it.
    network: bool = True
    #: Seconds.
    timeout: float
    #: Bytes of main memory.
    memory_bytes: int
    #: Bytes and files in all directories that it may write.
    size_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended."""

    #: Exit status, or minus the number of the signal that ended it.
    status: int
    #: Why it was ended, as a phrase behind "it"; empty if it ended by itself.
    ended_for: str = ""
    #: Whether that is for the bytes that it wrote.
    too_large: bool = False


class Programs(Protocol):
    """Runs programs. Blocks: call it in a thread. Safe to use from several threads."""

    def run(
        self,
        spec: ProgramSpec,
        *,
        output: Callable[[bytes], None],
        abandoned: threading.Event,
    ) -> ProgramEnd:
        """Run a program to its end; nothing of it lives afterwards.

        `output` is given what it writes on stdout and stderr, line by line
        without breaks, in the calling thread. Raises Abandoned, and OSError if
        it cannot be started or ended.
        """
