"""The API's objects. Made by scripts/models of the OpenAPI document; do not edit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from scaimind.model import Model

#: Of a time that the gateway always sends, where it is missing.
EPOCH = datetime.fromtimestamp(0, UTC)
__all__ = [
    "BaseModel",
    "Benchmark",
    "BenchmarkResult",
    "CachedDataset",
    "Checkpoint",
    "ClusterStatus",
    "DataCache",
    "DataConfig",
    "DataPreview",
    "DataSource",
    "DataValidation",
    "DeletedJob",
    "DistributedConfig",
    "Evaluation",
    "Failure",
    "Framework",
    "GetJobMetricsResponse",
    "GetQueueStatusResponse",
    "Gpu",
    "GpuCounts",
    "Job",
    "JobCounts",
    "JobProgress",
    "JobState",
    "MetricsBucket",
    "MetricsBuckets",
    "MetricsSnapshot",
    "Node",
    "OutputConfig",
    "PreprocessConfig",
    "QueuedJob",
    "ResourceConfig",
    "RunTimes",
    "SchedulingConfig",
    "StreamTicket",
    "SubmissionCheck",
    "SubmissionCheckSchema",
    "SubmitJobResponse",
    "SummaryAnswer",
    "TrainingConfig",
    "ValidateDataResponse",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel(Model):
    """BaseModel."""

    model_id: str = field(default="", metadata={"kind": str})
    revision: str = field(default="", metadata={"kind": str})
    source: str = field(default="", metadata={"kind": str})
    tokenizer_id: str = field(default="", metadata={"kind": str})
    dtype: str = field(default="", metadata={"kind": str})
    trust_remote_code: bool = field(default=False, metadata={"kind": bool})
    model_kwargs: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig(Model):
    """DistributedConfig."""

    world_size: int = field(default=0, metadata={"kind": int})
    backend: str = field(default="", metadata={"kind": str})
    strategy: str = field(default="", metadata={"kind": str})
    config: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework(Model):
    """Framework."""

    type: str = field(default="", metadata={"kind": str})
    config: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    distributed: DistributedConfig | None = field(
        default=None, metadata={"kind": DistributedConfig}
    )
    custom_script_path: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(Model):
    """TrainingConfig."""

    training_type: str = field(default="", metadata={"kind": str})
    base_model: BaseModel | None = field(default=None, metadata={"kind": BaseModel})
    framework: Framework | None = field(default=None, metadata={"kind": Framework})
    hyperparameters: Mapping[str, str] = field(
        default_factory=dict, metadata={"kind": ("map", str)}
    )
    environment: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    resume_from_checkpoint: str = field(default="", metadata={"kind": str})
    max_retries: int = field(default=0, metadata={"kind": int})
    priority: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource(Model):
    """DataSource."""

    path: str = field(default="", metadata={"kind": str})
    type: str = field(default="", metadata={"kind": str})
    split: str = field(default="", metadata={"kind": str})
    format: str = field(default="", metadata={"kind": str})
    columns: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})
    filters: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    sampling: float | None = field(default=None, metadata={"kind": float})


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig(Model):
    """PreprocessConfig."""

    tokenizer_id: str = field(default="", metadata={"kind": str})
    tokenizer_kwargs: Mapping[str, str] = field(
        default_factory=dict, metadata={"kind": ("map", str)}
    )
    add_bos: bool = field(default=False, metadata={"kind": bool})
    add_eos: bool = field(default=False, metadata={"kind": bool})
    padding: str = field(default="", metadata={"kind": str})
    truncation: bool = field(default=False, metadata={"kind": bool})
    chat_template: str = field(default="", metadata={"kind": str})
    field_mapping: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(Model):
    """DataConfig."""

    sources: tuple[DataSource, ...] = field(default=(), metadata={"kind": ("list", DataSource)})
    preprocess: PreprocessConfig | None = field(default=None, metadata={"kind": PreprocessConfig})
    max_seq_length: int = field(default=0, metadata={"kind": int})
    batch_size: int = field(default=0, metadata={"kind": int})
    gradient_accumulation_steps: int = field(default=0, metadata={"kind": int})
    num_workers: int = field(default=0, metadata={"kind": int})
    pin_memory: bool = field(default=False, metadata={"kind": bool})
    validation_split: float | None = field(default=None, metadata={"kind": float})
    seed: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceConfig(Model):
    """ResourceConfig."""

    gpu_count: int = field(default=0, metadata={"kind": int})
    gpu_type: str = field(default="", metadata={"kind": str})
    gpu_memory_bytes: int = field(default=0, metadata={"kind": int})
    node_count: int = field(default=0, metadata={"kind": int})
    cpu_count: int = field(default=0, metadata={"kind": int})
    memory_bytes: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig(Model):
    """OutputConfig."""

    path: str = field(default="", metadata={"kind": str})
    checkpoint_interval_steps: int = field(default=0, metadata={"kind": int})
    max_checkpoints: int = field(default=0, metadata={"kind": int})
    export_format: str = field(default="", metadata={"kind": str})
    register_model: bool = field(default=False, metadata={"kind": bool})
    model_name: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig(Model):
    """SchedulingConfig."""

    queue_name: str = field(default="", metadata={"kind": str})
    preemptible: bool = field(default=False, metadata={"kind": bool})
    max_runtime_seconds: int = field(default=0, metadata={"kind": int})
    not_before: datetime | None = field(default=None, metadata={"kind": datetime})
    node_selector: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    node_ids: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress(Model):
    """JobProgress."""

    step: int = field(default=0, metadata={"kind": int})
    total_steps: int = field(default=0, metadata={"kind": int})
    epoch: float | None = field(default=None, metadata={"kind": float})
    loss: float | None = field(default=None, metadata={"kind": float})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Model):
    """Checkpoint."""

    checkpoint_id: str = field(default="", metadata={"kind": str})
    step: int = field(default=0, metadata={"kind": int})
    path: str = field(default="", metadata={"kind": str})
    size_bytes: int = field(default=0, metadata={"kind": int})
    created_at: datetime | None = field(default=None, metadata={"kind": datetime})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Model):
    """Job."""

    job_id: str = field(default="", metadata={"kind": str})
    tenant_id: str = field(default="", metadata={"kind": str})
    user_id: str = field(default="", metadata={"kind": str})
    name: str = field(default="", metadata={"kind": str})
    status: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    error_message: str = field(default="", metadata={"kind": str})
    training_config: TrainingConfig | None = field(default=None, metadata={"kind": TrainingConfig})
    data_config: DataConfig | None = field(default=None, metadata={"kind": DataConfig})
    resource_config: ResourceConfig | None = field(default=None, metadata={"kind": ResourceConfig})
    output_config: OutputConfig | None = field(default=None, metadata={"kind": OutputConfig})
    scheduling_config: SchedulingConfig | None = field(
        default=None, metadata={"kind": SchedulingConfig}
    )
    labels: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    created_at: datetime | None = field(default=None, metadata={"kind": datetime})
    started_at: datetime | None = field(default=None, metadata={"kind": datetime})
    ended_at: datetime | None = field(default=None, metadata={"kind": datetime})
    updated_at: datetime | None = field(default=None, metadata={"kind": datetime})
    revision: int = field(default=0, metadata={"kind": int})
    parent_job_id: str = field(default="", metadata={"kind": str})
    run_count: int = field(default=0, metadata={"kind": int})
    progress: JobProgress | None = field(default=None, metadata={"kind": JobProgress})
    checkpoints: tuple[Checkpoint, ...] = field(default=(), metadata={"kind": ("list", Checkpoint)})
    node_ids: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})
    output_path: str = field(default="", metadata={"kind": str})
    exit_code: int | None = field(default=None, metadata={"kind": int})
    checkpoint_count: int | None = field(default=None, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionCheck(Model):
    """SubmissionCheck."""

    would_start: bool = field(default=False, metadata={"kind": bool})
    waiting_for: str = field(default="", metadata={"kind": str})
    warnings: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitJobResponse(Model):
    """SubmitJobResponse."""

    job_id: str = field(default="", metadata={"kind": str})
    status: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    estimated_wait_seconds: int = field(default=0, metadata={"kind": int})
    check: SubmissionCheck | None = field(default=None, metadata={"kind": SubmissionCheck})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSnapshot(Model):
    """MetricsSnapshot."""

    sequence: int = field(default=0, metadata={"kind": int})
    step: int = field(default=0, metadata={"kind": int})
    timestamp: datetime | None = field(default=None, metadata={"kind": datetime})
    epoch: float | None = field(default=None, metadata={"kind": float})
    loss: float | None = field(default=None, metadata={"kind": float})
    learning_rate: float | None = field(default=None, metadata={"kind": float})
    grad_norm: float | None = field(default=None, metadata={"kind": float})
    samples_per_second: float | None = field(default=None, metadata={"kind": float})
    tokens_per_second: float | None = field(default=None, metadata={"kind": float})
    gpu_utilization: float | None = field(default=None, metadata={"kind": float})
    gpu_memory_bytes: int | None = field(default=None, metadata={"kind": int})
    eval_metrics: Mapping[str, float] = field(
        default_factory=dict, metadata={"kind": ("map", float)}
    )
    extra: Mapping[str, float] = field(default_factory=dict, metadata={"kind": ("map", float)})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsBucket(Model):
    """MetricsBucket."""

    key: str = field(default="", metadata={"kind": str})
    from_step: int = field(default=0, metadata={"kind": int})
    to_step: int = field(default=0, metadata={"kind": int})
    minimum: float | None = field(default=None, metadata={"kind": float})
    maximum: float | None = field(default=None, metadata={"kind": float})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsBuckets(Model):
    """MetricsBuckets."""

    buckets: tuple[MetricsBucket, ...] = field(
        default=(), metadata={"kind": ("list", MetricsBucket)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GetJobMetricsResponse(Model):
    """GetJobMetricsResponse."""

    job_id: str = field(default="", metadata={"kind": str})
    points: tuple[MetricsSnapshot, ...] = field(
        default=(), metadata={"kind": ("list", MetricsSnapshot)}
    )
    total_points: int = field(default=0, metadata={"kind": int})
    between: MetricsBuckets | None = field(default=None, metadata={"kind": MetricsBuckets})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus(Model):
    """ClusterStatus."""

    total_nodes: int = field(default=0, metadata={"kind": int})
    online_nodes: int = field(default=0, metadata={"kind": int})
    draining_nodes: int = field(default=0, metadata={"kind": int})
    offline_nodes: int = field(default=0, metadata={"kind": int})
    total_gpus: int = field(default=0, metadata={"kind": int})
    allocated_gpus: int = field(default=0, metadata={"kind": int})
    available_gpus: int = field(default=0, metadata={"kind": int})
    active_jobs: int = field(default=0, metadata={"kind": int})
    queued_jobs: int = field(default=0, metadata={"kind": int})
    cluster_utilization: float | None = field(default=None, metadata={"kind": float})
    features: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Model):
    """Gpu."""

    index: int = field(default=0, metadata={"kind": int})
    type: str = field(default="", metadata={"kind": str})
    memory_bytes: int = field(default=0, metadata={"kind": int})
    utilization: float | None = field(default=None, metadata={"kind": float})
    memory_used_bytes: int | None = field(default=None, metadata={"kind": int})
    allocated: bool = field(default=False, metadata={"kind": bool})
    job_id: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Model):
    """Node."""

    node_id: str = field(default="", metadata={"kind": str})
    hostname: str = field(default="", metadata={"kind": str})
    status: str = field(default="", metadata={"kind": str})
    virtual: bool = field(default=False, metadata={"kind": bool})
    gpu_type: str = field(default="", metadata={"kind": str})
    total_gpus: int = field(default=0, metadata={"kind": int})
    allocated_gpus: int = field(default=0, metadata={"kind": int})
    gpus: tuple[Gpu, ...] = field(default=(), metadata={"kind": ("list", Gpu)})
    total_cpus: int = field(default=0, metadata={"kind": int})
    allocated_cpus: int = field(default=0, metadata={"kind": int})
    total_memory_bytes: int = field(default=0, metadata={"kind": int})
    allocated_memory_bytes: int = field(default=0, metadata={"kind": int})
    labels: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    running_jobs: int = field(default=0, metadata={"kind": int})
    running_job_ids: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})
    drain_reason: str = field(default="", metadata={"kind": str})
    last_heartbeat: datetime | None = field(default=None, metadata={"kind": datetime})


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob(Model):
    """QueuedJob."""

    job_id: str = field(default="", metadata={"kind": str})
    tenant_id: str = field(default="", metadata={"kind": str})
    name: str = field(default="", metadata={"kind": str})
    priority: int = field(default=0, metadata={"kind": int})
    gpu_count: int = field(default=0, metadata={"kind": int})
    gpu_type: str = field(default="", metadata={"kind": str})
    queued_at: datetime | None = field(default=None, metadata={"kind": datetime})
    position: int = field(default=0, metadata={"kind": int})
    estimated_wait_seconds: int = field(default=0, metadata={"kind": int})
    queue_name: str = field(default="", metadata={"kind": str})
    reason: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    behind_job_id: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class GetQueueStatusResponse(Model):
    """GetQueueStatusResponse."""

    queued_jobs: tuple[QueuedJob, ...] = field(default=(), metadata={"kind": ("list", QueuedJob)})
    total_queued: int = field(default=0, metadata={"kind": int})
    estimated_wait_seconds: int = field(default=0, metadata={"kind": int})
    next_page_token: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(Model):
    """Benchmark."""

    name: str = field(default="", metadata={"kind": str})
    dataset: str = field(default="", metadata={"kind": str})
    num_samples: int = field(default=0, metadata={"kind": int})
    parameters: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult(Model):
    """BenchmarkResult."""

    name: str = field(default="", metadata={"kind": str})
    dataset: str = field(default="", metadata={"kind": str})
    scores: Mapping[str, float] = field(default_factory=dict, metadata={"kind": ("map", float)})
    num_samples: int = field(default=0, metadata={"kind": int})
    duration_seconds: float | None = field(default=None, metadata={"kind": float})
    error_message: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Model):
    """Evaluation."""

    evaluation_id: str = field(default="", metadata={"kind": str})
    tenant_id: str = field(default="", metadata={"kind": str})
    job_id: str = field(default="", metadata={"kind": str})
    model_uri: str = field(default="", metadata={"kind": str})
    checkpoint_id: str = field(default="", metadata={"kind": str})
    status: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    error_message: str = field(default="", metadata={"kind": str})
    benchmarks: tuple[Benchmark, ...] = field(default=(), metadata={"kind": ("list", Benchmark)})
    results: tuple[BenchmarkResult, ...] = field(
        default=(), metadata={"kind": ("list", BenchmarkResult)}
    )
    created_at: datetime | None = field(default=None, metadata={"kind": datetime})
    started_at: datetime | None = field(default=None, metadata={"kind": datetime})
    ended_at: datetime | None = field(default=None, metadata={"kind": datetime})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPreview(Model):
    """DataPreview."""

    records: tuple[str, ...] = field(default=(), metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataValidation(Model):
    """DataValidation."""

    path: str = field(default="", metadata={"kind": str})
    accessible: bool = field(default=False, metadata={"kind": bool})
    size_bytes: int = field(default=0, metadata={"kind": int})
    record_count: int = field(default=0, metadata={"kind": int})
    format: str = field(default="", metadata={"kind": str})
    error_message: str = field(default="", metadata={"kind": str})
    preview: DataPreview | None = field(default=None, metadata={"kind": DataPreview})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateDataResponse(Model):
    """ValidateDataResponse."""

    valid: bool = field(default=False, metadata={"kind": bool})
    validations: tuple[DataValidation, ...] = field(
        default=(), metadata={"kind": ("list", DataValidation)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedDataset(Model):
    """CachedDataset."""

    path: str = field(default="", metadata={"kind": str})
    size_bytes: int = field(default=0, metadata={"kind": int})
    cached_at: datetime | None = field(default=None, metadata={"kind": datetime})
    last_accessed: datetime | None = field(default=None, metadata={"kind": datetime})
    reference_count: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCache(Model):
    """DataCache."""

    total_cache_size_bytes: int = field(default=0, metadata={"kind": int})
    used_cache_size_bytes: int = field(default=0, metadata={"kind": int})
    datasets: tuple[CachedDataset, ...] = field(
        default=(), metadata={"kind": ("list", CachedDataset)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTicket(Model):
    """Its answer."""

    #: Send it as the query argument `ticket`. It can be used once and is not shown again.
    ticket: str = field(default="", metadata={"kind": str})
    #: Time by which the ticket must be used.
    expires_at: datetime = field(default=EPOCH, metadata={"kind": datetime})
    #: Job that the ticket is for; null of the kinds `events` and `drive`.
    job_id: str | None = field(default=None, metadata={"kind": str})
    #: Kind of stream that the ticket is for.
    kind: str = field(default="", metadata={"kind": str})
    #: Form that the ticket is for.
    format: str = field(default="", metadata={"kind": str})
    #: Path that the ticket is for, of the kind `drive`; else empty.
    path: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts(Model):
    """How many jobs there are."""

    total: int = field(default=0, metadata={"kind": int})
    #: Every status is present, also with 0.
    by_status: Mapping[str, int] = field(default_factory=dict, metadata={"kind": ("map", int)})


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCounts(Model):
    """GPUs, as the jobs asked for them."""

    #: GPUs of running and waiting jobs; PAUSED jobs are not counted.
    requested: int = field(default=0, metadata={"kind": int})
    #: GPUs of jobs that hold them: SCHEDULING to EXPORTING.
    in_use: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Model):
    """A job that failed."""

    job_id: str = field(default="", metadata={"kind": str})
    name: str = field(default="", metadata={"kind": str})
    user_id: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    error_message: str = field(default="", metadata={"kind": str})
    ended_at: datetime | None = field(default=None, metadata={"kind": datetime})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes(Model):
    """How long the jobs took that were completed on a day, from their start to their end. Each percentile is within 2.5 % of a run time of that day; runs of less than a second count as one second."""

    #: UTC.
    day: str = field(default="", metadata={"kind": str})
    jobs: int = field(default=0, metadata={"kind": int})
    p50_seconds: float = field(default=0.0, metadata={"kind": float})
    p90_seconds: float = field(default=0.0, metadata={"kind": float})
    p99_seconds: float = field(default=0.0, metadata={"kind": float})


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryAnswer(Model):
    """Summary of the tenant's jobs in the cache, including evaluations."""

    jobs: JobCounts = field(default_factory=lambda: JobCounts(), metadata={"kind": JobCounts})
    gpus: GpuCounts = field(default_factory=lambda: GpuCounts(), metadata={"kind": GpuCounts})
    newest_failures: tuple[Failure, ...] = field(default=(), metadata={"kind": ("list", Failure)})
    #: Oldest first; days without a completed job are left out.
    run_times: tuple[RunTimes, ...] = field(default=(), metadata={"kind": ("list", RunTimes)})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState(Model):
    """JobState."""

    job_id: str = field(default="", metadata={"kind": str})
    user_id: str = field(default="", metadata={"kind": str})
    name: str = field(default="", metadata={"kind": str})
    status: str = field(default="", metadata={"kind": str})
    message: str = field(default="", metadata={"kind": str})
    progress: JobProgress | None = field(default=None, metadata={"kind": JobProgress})
    labels: Mapping[str, str] = field(default_factory=dict, metadata={"kind": ("map", str)})
    created_at: datetime | None = field(default=None, metadata={"kind": datetime})
    updated_at: datetime | None = field(default=None, metadata={"kind": datetime})
    ended_at: datetime | None = field(default=None, metadata={"kind": datetime})
    revision: int = field(default=0, metadata={"kind": int})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionCheckSchema(Model):
    """What would become of a submission that is valid."""

    #: Always true: a submission that is not valid is answered with an error.
    valid: bool | None = field(default=None, metadata={"kind": bool})
    #: Whether the job would start at once.
    would_start: bool | None = field(default=None, metadata={"kind": bool})
    #: 0 when it would start at once.
    estimated_wait_seconds: int | None = field(default=None, metadata={"kind": int})
    #: What it would wait for, for people; empty when it would start at once.
    waiting_for: str | None = field(default=None, metadata={"kind": str})
    #: What is allowed but probably not meant, for people.
    warnings: tuple[str, ...] | None = field(default=None, metadata={"kind": ("list", str)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedJob(Model):
    """A job that is no more."""

    job_id: str = field(default="", metadata={"kind": str})
    #: Of its log, metrics, checkpoints and directories.
    freed_bytes: int = field(default=0, metadata={"kind": int})
