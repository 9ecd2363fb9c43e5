"""The coordinator's values as messages of the contract."""

from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.jobs.checkpoint_rows import TOLD
from app.coordinator.jobs.model import Checkpoint, JobRecord, Progress, checkpoint_url
from app.coordinator.jobs.states import Status
from generated.mindcoordinator.v1 import jobs_pb2
from generated.mindcoordinator.v1.jobs_pb2 import Job, JobProgress, JobStatus


def status_message(status: Status) -> JobStatus.ValueType:
    """The contract's value of a state."""
    return JobStatus.Value(f"JOB_STATUS_{status.name}")


def time_message(microseconds: int) -> Timestamp:
    """A moment."""
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp


def progress_message(progress: Progress) -> JobProgress:
    """What a training process reported."""
    return JobProgress(
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        loss=progress.loss,
    )


def job_message(job: JobRecord) -> Job:
    """A job in full."""
    given = job.submission
    message = Job(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        user_id=job.user_id,
        name=job.name,
        status=status_message(job.status),
        message=job.message,
        error_message=job.error_message,
        training_config=given.training_config,
        data_config=given.data_config,
        resource_config=given.resource_config,
        output_config=given.output_config,
        scheduling_config=given.scheduling_config,
        labels=given.labels,
        created_at=time_message(job.created_at),
        updated_at=time_message(job.updated_at),
        revision=job.revision,
        parent_job_id=job.parent_job_id,
        run_count=job.run_count,
        progress=progress_message(job.progress),
        checkpoints=[checkpoint_message(job, each) for each in job.checkpoints[-TOLD:]],
        checkpoint_count=job.checkpoint_count,
        node_ids=job.node_ids,
        output_path=job.output_path,
        exit_code=job.exit_code,
    )
    if job.started_at:
        message.started_at.CopyFrom(time_message(job.started_at))
    if job.ended_at:
        message.ended_at.CopyFrom(time_message(job.ended_at))
    return message


def checkpoint_message(job: JobRecord, checkpoint: Checkpoint) -> jobs_pb2.Checkpoint:
    """A checkpoint of a job."""
    return jobs_pb2.Checkpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        step=checkpoint.step,
        path=checkpoint_url(job, checkpoint),
        size_bytes=checkpoint.size_bytes,
        created_at=time_message(checkpoint.created_at),
    )
