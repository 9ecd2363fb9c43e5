"""The part of a run that is on one node, as it travels to the node and is kept there."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from app.coordinator.engines.engine import RankSpec, RunSpec
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.rows import record_of, values_by_column

_PATHS: Final = ("script", "python", "directory", "secrets", "checkpoints", "files")
_PATH_LISTS: Final = ("readable", "shared")
#: The columns of a job's row that hold bytes.
_BYTES: Final = ("submission", "evaluation")


@dataclass(frozen=True, slots=True)
class RunPart:
    """What an agent starts."""

    #: With what it holds of this node alone.
    job: JobRecord
    #: With the ranks of this node alone.
    run: RunSpec
    #: The user id that the run has on every node; None where runs have none of their own.
    uid: int | None = None
    #: The values of masked variables, where the nodes cannot read the coordinator's file of them.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def number(self) -> int:
        """Its number among the parts of its run; that of rank 0 is 0."""
        return int(self.run.ranks[0].environment.get("NODE_RANK", "0"))

    @property
    def count(self) -> int:
        """How many parts its run has."""
        variables = self.run.ranks[0].environment
        return int(variables.get("WORLD_SIZE", "1")) // int(variables.get("LOCAL_WORLD_SIZE", "1"))

    def encoded(self) -> bytes:
        """Return it as JSON."""
        row = values_by_column(self.job)
        for name in _BYTES:
            if row[name] is not None:
                row[name] = base64.b64encode(row[name]).decode()
        value = {"job": row, "run": asdict(self.run), "uid": self.uid}
        return orjson.dumps({**value, "secrets": dict(self.secrets)}, default=str)

    @classmethod
    def decoded(cls, data: bytes) -> "RunPart":
        """Read what `encoded` returned."""
        value = orjson.loads(data)
        row = value["job"]
        for name in _BYTES:
            if row[name] is not None:
                row[name] = base64.b64decode(row[name])
        # Those before 0047 have no secrets.
        secrets = value.get("secrets", {})
        return cls(record_of(row), _run_of(value["run"]), value["uid"], secrets)


def part_on(
    node_id: str, job: JobRecord, run: RunSpec, *, meeting: Mapping[str, str], uid: int | None
) -> RunPart:
    """Return what of a job's run is on one of its nodes.

    `meeting` is where the ranks of all nodes find rank 0; empty for a run of one node.
    """
    ranks = tuple(
        replace(rank, environment={**rank.environment, **meeting})
        for rank in run.ranks
        if rank.node_id == node_id
    )
    placement = tuple(each for each in job.placement if each.node_id == node_id)
    return RunPart(
        replace(job, placement=placement, node_ids=(node_id,), checkpoints=()),
        replace(
            run,
            ranks=ranks,
            # The coordinator says them, once in the job's log.
            announcement="",
            warnings=(),
        ),
        uid,
    )


def _run_of(value: dict[str, Any]) -> RunSpec:
    for name in _PATHS:
        if value[name] is not None:
            value[name] = Path(value[name])
    for name in _PATH_LISTS:
        value[name] = tuple(map(Path, value[name]))
    for name in ("warnings", "options", "arguments"):
        value[name] = tuple(value[name])
    value["ranks"] = tuple(
        RankSpec(each["node_id"], tuple(each["gpus"]), each["environment"])
        for each in value["ranks"]
    )
    return RunSpec(**value)
