"""The node of the cluster on this machine, by which alone a driver can join.

Ray finds it among the processes that the driver sees, waits for a minute, and
then says no more than that it could not connect.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Final

import psutil

_NODE: Final = "raylet"


def commands() -> Iterator[Sequence[str]]:
    """Yield the command lines of all processes that can be seen."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.cmdline()


def why_not_joined(address: str, processes: Iterable[Sequence[str]]) -> str:
    """Return what may have kept a driver from the cluster at `address`, as a sentence; empty if a
    node of some cluster is among the processes."""
    if any(words and PurePath(words[0]).name == _NODE for words in processes):
        return ""
    return (
        "No node of Ray runs on this machine, and the driver joins by one. Start one that carries"
        f" no jobs: ray start --address={address} --num-cpus=0 --num-gpus=0."
    )
