"""The values that the coordinator keeps about jobs. All are immutable; times are in microseconds
since 1970, UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from app.coordinator.identity.access import Grant
from app.coordinator.jobs.states import Status
from app.coordinator.jobs.times import Moment
from generated.mindcoordinator.v1.evaluations_pb2 import SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest

#: Counts are exact in a double, and so in every JSON reader; sums of them fit into 64 bits.
MAX_COUNT: Final = 2**53 - 1


def bounded(count: float) -> int:
    """A count that earlier coordinators stored unbounded."""
    return int(min(max(count, -MAX_COUNT), MAX_COUNT))


class Kind(StrEnum):
    """What a job does."""

    TRAINING = "training"
    EVALUATION = "evaluation"


class StopReason(StrEnum):
    """Why a run is being stopped; decides what becomes of the job when it is over."""

    NONE = ""
    #: By CancelJob.
    CANCEL = "cancel"
    #: By PauseJob, with a checkpoint.
    PAUSE = "pause"
    #: By PauseJob, without one.
    PAUSE_NOW = "pause_now"
    #: For a job of higher priority.
    PREEMPT = "preempt"
    #: The coordinator stops; the run goes on at its next start.
    REQUEUE = "requeue"
    #: Its node was drained by force.
    EVICT = "evict"
    #: It ran for as long as it may.
    TIMEOUT = "timeout"
    #: The machine was short of memory, and the job had asked for none.
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What a job needs on each of `nodes` nodes, all at once."""

    nodes: int = 1
    gpus: int = 0
    #: Empty takes any.
    gpu_type: str = ""
    #: Bytes that each GPU must have at least.
    gpu_memory: int = 0
    #: Cores; 0 takes what is idle, which is not accounted.
    cpus: int = 1
    #: Bytes of main memory; 0 is not accounted.
    memory: int = 0
    #: Nodes to choose from; empty means any.
    node_ids: tuple[str, ...] = ()
    #: Labels that a node must have.
    selector: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a job holds of one node."""

    node_id: str
    #: Indices of GPUs.
    gpus: tuple[int, ...]
    cpus: int
    memory: int
    #: Numbers of the node's cores that are its own, from 0; none for a job that asked for none,
    #: and for one that was placed before cores had numbers.
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Promise:
    """The place at which a job that waits will start, once runs have ended that are being stopped
    for it."""

    #: Without cores: which ones it has is decided when it starts.
    shares: tuple[Allocation, ...]
    #: When the newest job was made that was there then: only one that is newer may have this place
    #: instead.
    newest_job: int
    #: Whether it starts nowhere else: what else is being stopped may be enough for it, and some of
    #: its own victims would have been stopped in vain.
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint; `checkpoint_id` is its name as a directory or file, unique within
    the job, in characters that can be printed."""

    checkpoint_id: str
    step: int
    size_bytes: int
    #: When the coordinator saw it.
    created_at: int
    #: Grows in the order in which the coordinator saw the job's checkpoints complete.
    sequence: int = 0
    #: What tells it from another one under the same name, see `checkpoints`; empty if unknown.
    identity: str = ""
    #: How many looks in a row saw this size; it is looked at until they are two.
    measured: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest numbers that the training process reported."""

    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> "Progress":
        """As it was stored. Earlier coordinators let any number in."""
        return cls(
            step=bounded(value["step"]),
            total_steps=max(bounded(value["total_steps"]), 0),
            # What is not finite was stored as null.
            epoch=value["epoch"] or 0.0,
            loss=value["loss"],
        )


@dataclass(frozen=True, slots=True)
class Program:
    """What a job's processes execute: what `framework.config` says of it, checked."""

    #: URL of a folder or a `.tar.gz` that each run has a copy of; empty if there is none.
    working_dir: str = ""
    #: The script below it; empty if custom_script_path is a URL of its own.
    script: str = ""
    arguments: tuple[str, ...] = ()
    #: The file below it that names the packages of the job; empty if it has none of its own.
    requirements: str = ""
    #: Whether packages may be built for which there is no wheel.
    allow_source_builds: bool = False

    @classmethod
    def stored(cls, value: Mapping[str, Any] | None) -> "Program | None":
        """As it was stored as JSON."""
        return None if value is None else cls(**{**value, "arguments": tuple(value["arguments"])})


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything about a job that is kept; of two copies the one with the higher revision is
    newer."""

    job_id: str
    tenant_id: str
    user_id: str
    name: str
    #: As it was submitted, with defaults filled in. Never changed.
    submission: SubmitJobRequest = field(repr=False)
    resource_request: ResourceRequest
    created_at: int
    updated_at: int
    kind: Kind = Kind.TRAINING
    #: What it may read and write. Never changed; None in rows of coordinators that gave none.
    grant: Grant | None = field(default=None, repr=False)
    #: Never changed. None of an evaluation, and of a job whose coordinator read nothing of this in
    #: `framework.config`: what that says means nothing then.
    program: Program | None = None
    #: What is evaluated, if it is an evaluation. Never changed.
    evaluation: SubmitEvaluationRequest | None = field(default=None, repr=False)
    status: Status = Status.PENDING
    message: str = ""
    error_message: str = ""
    priority: int = 5
    queue_name: str = "default"
    revision: int = 1
    parent_job_id: str = ""
    run_count: int = 0
    #: Retries that the coordinator made by itself.
    retry_count: int = 0
    stop_reason: StopReason = StopReason.NONE
    stop_message: str = ""
    placement: tuple[Allocation, ...] = ()
    #: Of a QUEUED job for which runs are being stopped.
    promise: Promise | None = None
    #: Where it runs or ran.
    node_ids: tuple[str, ...] = ()
    #: Directory of the checkpoint that the next run starts from, or empty.
    resume_from: str = ""
    output_path: str = ""
    #: The job whose directory has the artefacts that this one exports without a run. Of a job
    #: that has FAILED: the one whose artefacts a retry exports. Empty if a retry runs again.
    artefacts_of: str = ""
    exit_code: int | None = None
    progress: Progress = Progress()
    #: The newest of its checkpoints, the oldest first: all of them as long as it has not ended.
    checkpoints: tuple[Checkpoint, ...] = ()
    #: How many there are in all.
    checkpoint_count: int = 0
    not_before: int = 0
    queued_at: int = 0
    #: When the first run began.
    started_at: int = 0
    #: When the newest run began.
    run_started_at: int = 0
    #: The same on the steady clock, by which it is measured; None before the first run.
    run_began: Moment | None = None
    #: Microseconds that the newest run took; 0 before it is over.
    ran: int = 0
    ended_at: int = 0

    @property
    def preemptible(self) -> bool:
        """Whether a job of higher priority may take its resources."""
        return self.submission.scheduling_config.preemptible

    @property
    def max_runtime(self) -> int:
        """Microseconds; 0 sets no limit."""
        return self.submission.scheduling_config.max_runtime_seconds * 1_000_000


def checkpoint_url(job: JobRecord, checkpoint: Checkpoint) -> str:
    """Where a checkpoint is, as a `scaidrive://` URL."""
    return f"scaidrive://{job.tenant_id}/jobs/{job.job_id}/checkpoints/{checkpoint.checkpoint_id}"
