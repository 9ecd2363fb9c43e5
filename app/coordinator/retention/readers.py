"""Who will still read the files of a job that has ended: it must not be deleted before them."""

from collections.abc import Iterable, Iterator

from app.coordinator.data.drive import SCHEME
from app.coordinator.jobs.model import JobRecord


def reader_of(tenant_id: str, job_id: str, unfinished: Iterable[JobRecord]) -> JobRecord | None:
    """One of the unfinished jobs that reads another job's files, or may; None if none does.

    A retry without a run exports its parent's artefacts, others begin at its
    checkpoints, read a folder that holds them, or evaluate one of them.
    """
    checkpoints = f"{SCHEME}{tenant_id}/jobs/{job_id}/checkpoints"
    for job in unfinished:
        if job.job_id == job_id or job.tenant_id != tenant_id:
            continue
        if job.artefacts_of == job_id or any(
            _overlap(url, checkpoints) for url in _read_by(job) if url
        ):
            return job
    return None


def _read_by(job: JobRecord) -> Iterator[str]:
    """What a job names; its own folder is among it."""
    yield job.resume_from
    if job.grant is not None:
        yield from job.grant.urls
        return
    training = job.submission.training_config
    yield training.base_model.model_id
    yield from (source.path for source in job.submission.data_config.sources)
    if job.evaluation is not None:
        yield job.evaluation.model_uri


def _overlap(one: str, other: str) -> bool:
    """Whether one of two URLs leads to the other or below it."""
    one, other = f"{one.rstrip('/')}/", f"{other}/"
    return one.startswith(other) or other.startswith(one)
