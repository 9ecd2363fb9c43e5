"""The boundary to whatever carries runs out.

Above it nobody knows how a run is started, signalled or ended, or which
processes it has. A run belongs to a job and has a number; a job has one run at
a time. An engine keeps no state that it could not find again: the coordinator
may be killed at any moment, and its successor recovers the runs that go on.

Everything that is done to a run is done for a term, a number that grows each
time another coordinator takes over. A run remembers the highest term that has
launched or recovered it, and what comes for a lower one is refused: it comes
from a coordinator that does not know yet that it was replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.engines.programs import Programs
from app.coordinator.isolation.levels import Isolation
from app.coordinator.jobs.model import JobRecord, ResourceRequest
from app.coordinator.scheduling.transitions import RunEnd


class Discard(IntEnum):
    """What of what a run wrote is dropped where it is not brought to the drive when the run has
    to stop. Where the run writes to the drive itself, nothing is."""

    #: However long the drive takes.
    NOTHING = 0
    #: All, once the run has ended; of a run that lives yet, what the drive does not take then.
    AT_ONCE = 1
    #: When the stop grace is over, what the drive does not take.
    UNTAKEN = 2
    #: When the stop grace is over, all.
    LATE = 3


class CannotLaunch(Exception):
    """The run cannot be started, now or later. The message is a phrase for the job's owner."""


class NeverStarted(Exception):
    """Nothing of the run was ever started: it can be launched as if for the first time."""


@dataclass(frozen=True, slots=True)
class RankSpec:
    """One of a run's processes."""

    node_id: str
    #: GPUs of its node that the job holds. All ranks of a node share them.
    gpus: tuple[int, ...]
    #: Its place among the ranks, as `torch.distributed` reads it; empty for a single process.
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a run executes, whatever the engine. Everything that the engine adds is its own."""

    #: The first line of the run in the job's log, and warnings behind it.
    announcement: str
    warnings: tuple[str, ...] = ()
    #: Executed by Python with these options. No job can change it, unless it is in `directory`.
    script: Path
    #: Of the job's own environment; this Python if there is none.
    python: Path | None = None
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    #: Where the run begins, which it may write; its job's own directory if there is none.
    directory: Path | None = None
    #: The job's directory with its program and its files, where that of its records is another.
    files: Path | None = None
    #: A process, as `process_identity` has it, without which the run is ended; none if empty.
    keeper: Mapping[str, Any] = field(default_factory=dict)
    #: What the submission sets; credentials are masked.
    environment: Mapping[str, str]
    #: What the coordinator sets; takes precedence.
    variables: Mapping[str, str]
    #: A file with the values of masked variables.
    secrets: Path | None = None
    #: By rank.
    ranks: tuple[RankSpec, ...]
    #: The directory of the job's checkpoints, which the run may write.
    checkpoints: Path
    #: What the run may read besides its job's directory.
    readable: tuple[Path, ...] = ()
    #: The same, of what every user may read already.
    shared: tuple[Path, ...] = ()
    #: For which it is launched; see above.
    term: int = 0
    #: Bytes of the job's log and metrics that are kept elsewhere, and count for their bounds.
    log_bytes_before: int = 0
    metrics_bytes_before: int = 0


class RunHandle(Protocol):
    """A run that was launched or recovered. For one owner, on one event loop."""

    def stop(self, *, at_once: bool, discard: Discard = Discard.NOTHING) -> None:
        """Ask the run to save a checkpoint and exit, or end it at once.

        Returns immediately and never raises. A run that has not ended in time
        is ended by the engine; asking again does not grant more time, nor for
        what is discarded.
        """

    async def wait(self) -> RunEnd:
        """Return how the run ended, once nothing of it lives and its log is complete.

        Can be called again after a failure or a cancellation. Raises OSError
        if the run cannot be followed or ended; LeadershipLost if a higher term
        is known.
        """

    async def say(self, text: str) -> bool:
        """Have a line of the coordinator's said in the job's log while the run goes on, once.

        Returns False if it has to be said when the run has ended. Never raises
        for what is the run's.
        """

    async def unsaid(self) -> Sequence[str]:
        """Return the lines that the run has not said, once it has ended. Raises OSError."""

    async def all_said(self) -> None:
        """Note that those lines are in the job's log. Raises OSError."""

    def close(self) -> None:
        """Let go of the run. One that lives continues, and can be recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvents:
    """Whom an engine calls, on its event loop, when something has happened.

    A call may be missing when the coordinator starts: what it is about is then
    in the job's files, or in `Engine.nodes`.
    """

    #: The job's log or metrics have grown.
    job_grew: Callable[[str], None]
    #: A node has joined, was lost, has returned, or has other resources than before: all nodes
    #: that the engine knows, as `Engine.nodes` returns them.
    nodes_changed: Callable[[Sequence[NodeReport]], None]


class Engine(Protocol):
    """Carries runs out on the nodes that it has."""

    #: What keeps runs apart, on every node at least so strongly.
    isolation: Isolation
    #: What else is run for jobs, on the coordinator's machine.
    programs: Programs

    @property
    def restarts(self) -> int:
        """How often what the engine drives its cluster by has ended and was started again."""

    @property
    def agent_faults(self) -> Mapping[str, int]:
        """How often an agent on a node has done what none of this release does, by kind."""

    def nodes(self) -> Sequence[NodeReport]:
        """Return the nodes as they are known at this moment, by distinct ids.

        A node that was lost is among them for as long as the engine knows it,
        with its problem. One that returns has the same id as before.
        """

    def listen(self, events: EngineEvents) -> None:
        """Report what happens from now on. Call it once, on the event loop."""

    def keep_runs(self, jobs: Sequence[JobRecord], *, term: int) -> None:
        """Let go of what a former coordinator left of runs that have ended: of all but the newest
        runs of these jobs, which are those that run. Call it once, before any launch. Returns at
        once and never raises."""

    def request_nodes(self, requests: Sequence[ResourceRequest]) -> None:
        """Note what waiting jobs ask for, in the order in which they are placed.

        For whoever can add nodes to the cluster; each call replaces the one
        before. Returns at once and never raises.
        """

    async def close(self) -> None:
        """Let go of everything. Runs continue."""

    async def launch(self, job: JobRecord, run: RunSpec) -> RunHandle:
        """Start the job's run `job.run_count` for `run.term`, for which its handle acts, too.

        Raises CannotLaunch, and OSError for what may pass; nothing was started then.
        Raises LeadershipLost if a higher term is known.
        """

    async def recover(self, job: JobRecord, *, term: int) -> RunHandle:
        """Find the job's run `job.run_count` again, also if it has ended since.

        The handle acts for `term`. Raises NeverStarted, OSError; LeadershipLost
        if a higher term is known.
        """

    async def kill(self, job_id: str, *, term: int) -> None:
        """End the newest run of a job, of which nothing else needs to be known.

        Nothing of it lives afterwards. Raises OSError if it cannot be ended;
        LeadershipLost if a higher term is known.
        """
