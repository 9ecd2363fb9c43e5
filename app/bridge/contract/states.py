"""Streams of states, message by message, against what was asked."""

from typing import Final

from app.bridge.contract.breaches import Breach
from app.bridge.contract.fields import check_fields
from app.bridge.contract.logs import check_epoch
from app.errors import BrokenContract
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_UNSPECIFIED
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobState,
    WatchJobsRequest,
    WatchJobsResponse,
    WatchJobsStart,
)

#: Bytes of one job's record. Names, labels and messages that can be submitted fit in.
MAX_STATE: Final = 256 * 1024


class StatesCheck:
    """Checks the messages of one WatchJobs call, in their order."""

    def __init__(self, request: WatchJobsRequest, tenant_id: str) -> None:
        self._request = request
        self._tenant_id = tenant_id
        #: The version of the newest change; None before the start.
        self._last: int | None = None
        self._synced = False

    def check(self, message: WatchJobsResponse) -> None:
        """Check the next message. Raises `BrokenContract`; the call is of no use then."""
        check_fields(message)
        if message.HasField("start"):
            if self._last is not None:
                raise BrokenContract(Breach.START, "start: must be in the first message only")
            self._start(message.start)
        last = self._last
        if last is None:
            raise BrokenContract(Breach.START, "start: must be in the first message")
        for change in message.changes:
            if change.version < last or (self._synced and change.version == last):
                raise BrokenContract(Breach.ORDER, "changes.version: must rise")
            last = change.version
            if change.HasField("job"):
                self._job(change.job)
            elif not change.deleted_job_id:
                raise BrokenContract(Breach.IDENTIFIER, "changes: must be about a job")
        if message.HasField("synced"):
            if self._synced:
                raise BrokenContract(Breach.ORDER, "synced: must be there once")
            if message.synced < last:
                raise BrokenContract(Breach.ORDER, "synced: must not be before the last change")
            self._synced, last = True, message.synced
        self._last = last
        for queued in message.queue.queued_jobs:
            if queued.tenant_id not in ("", self._tenant_id):
                raise BrokenContract(
                    Breach.TENANT, "queue.queued_jobs.tenant_id: must be the tenant that asked"
                )

    def _start(self, start: WatchJobsStart) -> None:
        check_epoch("start.epoch", start.epoch)
        after = self._request.after
        continues = self._request.HasField("after") and after.epoch == start.epoch
        if not start.reset and not continues:
            raise BrokenContract(Breach.START, "start.reset: must be set without that `after`")
        self._last = 0 if start.reset else after.version

    @staticmethod
    def _job(job: JobState) -> None:
        if job.status == JOB_STATUS_UNSPECIFIED:
            raise BrokenContract(Breach.VALUE, "changes.job.status: must be given")
        if job.ByteSize() > MAX_STATE:
            raise BrokenContract(Breach.VALUE, f"changes.job: must have at most {MAX_STATE} bytes")
