"""The process without which a run is ended: on a node of a cluster, the one that stands for it.

Once it is gone, the cluster takes the node for lost, and the job goes on
elsewhere. Two runs of one job would write the same checkpoints.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from app.coordinator.storage.process_identity import open_process

#: Why a run was ended whose keeper is gone.
KEEPER_GONE: Final = "Its node has left the cluster."


class Keeper:
    """Watches a run's keeper. Close it at the end."""

    def __init__(self, mark: Mapping[str, Any]) -> None:
        """`mark` is what `process_identity` told of it; without one there is no keeper."""
        #: Readable once the keeper is gone; None if there is none.
        self.file: int | None = None
        if mark and (file := open_process(dict(mark))) is not None:
            self.file = file
        elif mark:
            # It is gone already: the end of a pipe that nobody writes to is readable.
            self.file, other = os.pipe()
            os.close(other)

    def close(self) -> None:
        """Stop watching."""
        if self.file is not None:
            os.close(self.file)
