"""Which run of a job is the newest one: a node that is cut off, and taken for lost, may still reach
the store, and publishes nothing more for a run that another has followed.

What it has begun to send by then it may still send: that is below keys of its own, and nobody has
it count any more.
"""

from typing import Final

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.engines.engine import CannotLaunch
from app.coordinator.jobs.model import JobRecord
from app.files.directory import LimitReached

#: Beside what the job publishes but its checkpoints.
_NAME: Final = ".run"
#: Bytes of a number.
_MOST: Final = 32


def note_newest_run(drive: BucketDrive, job: JobRecord) -> None:
    """Note that a run begins. Raises as every call of the store."""
    drive.store.write(_key(drive, job), str(job.run_count).encode())


def require_newest_run(drive: BucketDrive, job: JobRecord) -> None:
    """Raise CannotLaunch if another run has begun since; raises as every call of the store."""
    try:
        text = drive.store.read(_key(drive, job), limit=_MOST)
    except (FileNotFoundError, LimitReached):
        # One that began before such notes were made.
        return
    if text.isdigit() and int(text) > job.run_count:
        raise CannotLaunch("another run of the job has begun")


def _key(drive: BucketDrive, job: JobRecord) -> str:
    return drive.kept(job.tenant_id, job.job_id).prefix + _NAME
