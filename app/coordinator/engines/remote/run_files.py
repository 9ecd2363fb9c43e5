"""What the coordinator writes down of a run on other machines: what it launches, before anything
is started there, and how that ended."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from app.coordinator.engines.agent.run_part import RunPart, part_on
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import RunDir
from app.files.json_files import read_json, write_json
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef

_PART: Final = "part"
_STARTED: Final = "started"


@dataclass(frozen=True, slots=True)
class Launched:
    """A run that is launched: it is the same whoever takes it up again."""

    whole: RunPart
    #: All its parts were started. One of which its node has nothing is lost from then on.
    started: bool

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Its nodes, the first one of them that of rank 0."""
        return tuple(each.node_id for each in self.whole.job.placement)

    def ref(self, node_id: str, *, term: int) -> RunRef:
        """Return how a part is named to the driver, by a coordinator that leads for `term`."""
        job = self.whole.job
        (held,) = (each for each in job.placement if each.node_id == node_id)
        return RunRef(
            job_id=job.job_id,
            run=job.run_count,
            node_id=node_id,
            term=term,
            cpus=held.cpus,
            memory_bytes=held.memory,
            gpus=len(held.gpus),
        )

    def part(self, node_id: str, *, address: str, port: int, secrets: Mapping[str, str]) -> bytes:
        """Return a part as it is sent to its node; the ranks of several nodes meet at `address`,
        of the first one, and `port`. `secrets` are what the node cannot read from a file."""
        several = len(self.node_ids) > 1
        meeting = {"MASTER_ADDR": address, "MASTER_PORT": str(port)} if several else {}
        whole = self.whole
        part = part_on(node_id, whole.job, whole.run, meeting=meeting, uid=whole.uid)
        return replace(part, secrets=secrets).encoded()


def write_launch(directory: RunDir, whole: RunPart, *, started: bool) -> None:
    """Write it down. Raises OSError."""
    directory.path.mkdir(parents=True, exist_ok=True)
    write_json(directory.launch, {_PART: whole.encoded().decode(), _STARTED: started})


def read_launch(directory: RunDir) -> Launched | None:
    """Return what was written down; None if the run was never launched. Raises OSError."""
    value = read_json(directory.launch)
    if value is None:
        return None
    return Launched(RunPart.decoded(value[_PART].encode()), value[_STARTED])


def read_end(directory: RunDir) -> RunEnd | None:
    """Return how a run ended, if that was written down. Raises OSError."""
    value = read_json(directory.exit)
    return None if value is None else RunEnd(**value)


def write_end(directory: RunDir, end: RunEnd) -> None:
    """Write down how a run ended. Raises OSError."""
    write_json(directory.exit, asdict(end))
