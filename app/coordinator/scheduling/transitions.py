"""What a change of jobs leads to: their next versions, and what is to be done."""

from dataclasses import dataclass, field

from app.coordinator.cluster.node_specs import NodeReport
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.states import RUNNING


@dataclass(frozen=True, slots=True)
class Prepare:
    """Set up the job's directory, then report `preparing` and `prepared`."""

    job: JobRecord

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id


@dataclass(frozen=True, slots=True)
class Abandon:
    """Cancel preparing, whose end is then not reported, or exporting, whose end is."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the run `job.run_count`, and report `run_ended`."""

    job: JobRecord

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the run to save a checkpoint and exit; `at_once` kills it instead."""

    job: JobRecord
    at_once: bool

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id


@dataclass(frozen=True, slots=True)
class Export:
    """Export the artefacts to their destination, then report `exported` or `export_failed`."""

    job: JobRecord

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id


Instruction = Prepare | Abandon | Launch | Stop | Export


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    #: Of the training process, as the engine reports it; None if unknown.
    exit_code: int | None
    #: Why the process ended, in a sentence, if that was not its own decision; empty otherwise.
    interruption: str = ""
    #: It was asked to stop before it ended.
    stopped: bool = False
    #: Why the run could not be carried out, whatever the process did; empty otherwise.
    failure: str = ""
    #: The failure may not happen again.
    transient: bool = False
    #: What the process said last on stderr.
    last_words: str = ""


@dataclass(slots=True)
class Transition:
    """What one change led to. Recorded by the job table."""

    #: Every version of a job, in order.
    changed: list[JobRecord] = field(default_factory=list)
    #: What the changed jobs were before; None for one that is new.
    before: dict[str, JobRecord | None] = field(default_factory=dict)
    #: Nodes whose drain changed, with what it was before.
    drained: dict[str, str | None] = field(default_factory=dict)
    #: The nodes as they were before others were reported; None if none were.
    nodes_before: tuple[NodeReport, ...] | None = None
    instructions: list[Instruction] = field(default_factory=list)

    def newest(self) -> dict[str, JobRecord]:
        """Return the last version of each job that changed."""
        return {job.job_id: job for job in self.changed}

    def ended_runs(self) -> list[JobRecord]:
        """Return the jobs whose run has ended."""
        newest = self.newest()
        return [
            newest[job_id]
            for job_id, before in self.before.items()
            if before is not None
            and before.status in RUNNING
            and newest[job_id].status not in RUNNING
        ]
