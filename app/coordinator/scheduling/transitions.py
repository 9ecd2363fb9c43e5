"""What an event leads to: the jobs that it changed, and what is to be done."""

from dataclasses import dataclass, field

from app.coordinator.jobs.model import JobRecord


@dataclass(frozen=True, slots=True)
class Prepare:
    """Set up the job's directory, then tell `preparing` and `prepared`."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up preparing, of which nothing more is told, or exporting, of which the end is."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the run `job.run_count`, and tell `run_ended` when it is over."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the run to save a checkpoint and leave; `at_once` kills it instead."""

    job: JobRecord
    at_once: bool


@dataclass(frozen=True, slots=True)
class Export:
    """Bring the artefacts to their destination, then tell `exported`."""

    job: JobRecord


Instruction = Prepare | Abandon | Launch | Stop | Export


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run was over."""

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
    """What one event led to. `changed` has every version of a job, in order."""

    changed: list[JobRecord] = field(default_factory=list)
    #: What the changed jobs were before; None for one that is new.
    before: dict[str, JobRecord | None] = field(default_factory=dict)
    #: Nodes whose drain changed, with what it was before.
    drained: dict[str, str | None] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    #: Jobs whose run is over, as they were then.
    ran: list[JobRecord] = field(default_factory=list)

    def newest(self) -> dict[str, JobRecord]:
        """The last version of each job that changed."""
        return {job.job_id: job for job in self.changed}
