"""A part's files on its node, where the nodes share no disk: brought there, and brought away."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from app.coordinator.engines.agent.node_settings import NodeSettings
from app.coordinator.engines.agent.run_part import RunPart
from app.coordinator.engines.engine import RunSpec
from app.coordinator.engines.programs import Programs


class PartFiles(Protocol):
    """Of one part of a run. Blocks: call it in a thread, one call at a time.

    Every call raises OSError: what may pass, as `is_passing` has it, can be
    tried again. It also raises Abandoned.
    """

    def prepare(self, part: RunPart, abandoned: threading.Event) -> RunSpec:
        """Set up the job's directory on the node with all that the run needs, and return what it
        executes there. Raises CannotLaunch with a phrase for the job's owner."""

    def publish(self, part: RunPart, abandoned: threading.Event) -> None:
        """Bring the checkpoints away that are complete and not away yet. Raises CannotLaunch if
        another run of the job has begun."""

    def publish_last(self, part: RunPart, abandoned: threading.Event) -> None:
        """Bring away what is left when the run has ended: checkpoints and output. Raises
        CannotLaunch for what cannot be brought away, with a phrase for the job's owner."""

    def close(self) -> None:
        """Let go of the connections."""


#: Makes a part's files: for a node, in the directory of its records, with what helpers are run by.
OpenFiles: TypeAlias = Callable[[NodeSettings, Path, Programs], PartFiles]
