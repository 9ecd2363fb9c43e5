"""Training jobs, to be awaited."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from scaimind import models
from scaimind.asynchronous.driver import AsyncDriver
from scaimind.core import operations
from scaimind.core.cursor import Cursor
from scaimind.core.entries import Gap, LogLine
from scaimind.core.follow import Following, follow_logs
from scaimind.core.wait import wait_for_jobs


class AsyncJobs:
    """Training jobs."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> models.SubmitJobResponse:
        """Queue a job. It is queued once, however often the request has to be repeated."""
        return await self._driver.result(operations.submit_job(body, idempotency_key))

    async def check(self, body: Mapping[str, Any]) -> models.SubmissionCheckSchema:
        """Check a job as `submit` does, and queue nothing."""
        return await self._driver.result(operations.check_job(body))

    async def get(self, job_id: str) -> models.Job:
        """Get a job."""
        return await self._driver.result(operations.get_job(job_id))

    def list(
        self,
        *,
        status: Iterable[str] | str | None = None,
        label: Iterable[str] | str | None = None,
        name: str | None = None,
        user_id: Iterable[str] | str | None = None,
        created_after: datetime | str | None = None,
        kind: str | None = None,
        parent_job_id: str | None = None,
        order_by: str | None = None,
        page_size: int | None = None,
    ) -> AsyncIterator[models.Job]:
        """Iterate over the tenant's jobs, newest first unless `order_by` says otherwise.

        A `label` is `key=value`; `kind` is training or evaluation. Retries of a job have it as
        their `parent_job_id`.
        """
        return self._driver.run(
            operations.list_jobs(
                status=status,
                label=label,
                name=name,
                user_id=user_id,
                created_after=created_after,
                kind=kind,
                parent_job_id=parent_job_id,
                order_by=order_by,
                page_size=page_size,
            )
        )

    async def cancel(self, job_id: str, *, reason: str = "") -> models.Job:
        """End a job that has not ended."""
        return await self._driver.result(
            operations.act_on_job(job_id, "cancel", {"reason": reason})
        )

    async def pause(self, job_id: str, *, save_checkpoint: bool = True) -> models.Job:
        """Stop a running job so that it can be resumed."""
        body = {"save_checkpoint": save_checkpoint}
        return await self._driver.result(operations.act_on_job(job_id, "pause", body))

    async def resume(self, job_id: str, *, checkpoint_id: str = "") -> models.Job:
        """Put a paused job back to work, from its newest checkpoint unless one is named."""
        body = {"checkpoint_id": checkpoint_id}
        return await self._driver.result(operations.act_on_job(job_id, "resume", body))

    async def retry(self, job_id: str, *, checkpoint_id: str = "") -> models.Job:
        """Make a child job of a failed or preempted one, and return the child."""
        body = {"checkpoint_id": checkpoint_id}
        return await self._driver.result(operations.act_on_job(job_id, "retry", body))

    async def update(
        self,
        job_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> models.Job:
        """Change a job's name and labels; a label of None is removed, others stay."""
        return await self._driver.result(operations.update_job(job_id, name, labels))

    async def delete(self, job_id: str) -> models.DeletedJob:
        """Delete a job that has ended, and what is kept of it; what it exported stays."""
        return await self._driver.result(operations.delete_job(job_id))

    def checkpoints(self, job_id: str) -> AsyncIterator[models.Checkpoint]:
        """Iterate over a job's checkpoints, newest first."""
        return self._driver.run(operations.list_checkpoints(job_id))

    async def metrics(
        self,
        job_id: str,
        *,
        max_points: int | None = None,
        keys: Iterable[str] | str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> models.GetJobMetricsResponse:
        """Get a job's numbers, thinned to `max_points`: all, or those of `keys`."""
        return await self._driver.result(
            operations.job_metrics(
                job_id, max_points=max_points, keys=keys, from_step=from_step, to_step=to_step
            )
        )

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        first: int | None = None,
        after: Cursor | str | None = None,
        level: str | None = "DEBUG",
        rank: Iterable[int] | int | None = None,
        source: Iterable[str] | str | None = None,
        contains: str | None = None,
        matches: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> "AsyncLogs":
        """Iterate over a job's log.

        With `follow`, through everything until the job has ended; a connection
        that breaks is made again for ever. `after` is where to go on; otherwise it
        begins with the newest `tail` lines, or with the line `first` (1 is all of
        the log), or where the gateway chooses. The others are conditions that each
        line fulfils: `level` is the least one, `contains` a text whatever its case,
        `matches` a pattern of RE2.
        """
        more = operations.query(
            **{"from": first},
            level=level,
            rank=rank,
            source=source,
            contains=contains,
            matches=matches,
            since=since,
            until=until,
        )
        return AsyncLogs(self._driver, job_id, follow=follow, tail=tail, after=after, more=more)

    async def wait(
        self,
        *job_ids: str,
        timeout: float | None = None,  # noqa: ASYNC109  # as Client has it
        progress: Callable[[models.JobState], None] | None = None,
    ) -> dict[str, str]:
        """Wait until each of the jobs has ended; return their final statuses by id.

        `timeout` is in seconds; raises `WaitTimeout` when it is over. A paused
        job has not ended. Raises `NotFound` for a job that does not exist or is
        deleted meanwhile. `progress` is called with each status before the last.
        """
        steps = wait_for_jobs(job_ids, timeout=timeout, clock=time.monotonic)
        return await self._driver.result(
            steps, None if progress is None else lambda event: progress(event.job)
        )


class AsyncLogs(AsyncIterator["LogLine | Gap"]):
    """Lines and gaps of a log, in order, each once."""

    def __init__(
        self,
        driver: AsyncDriver,
        job_id: str,
        *,
        follow: bool,
        tail: int | None,
        after: Cursor | str | None,
        more: tuple[tuple[str, str], ...],
    ) -> None:
        self._following = Following(cursor=Cursor.parse(after) if isinstance(after, str) else after)
        self._items = driver.run(
            follow_logs(
                job_id,
                (*operations.query(follow=follow, tail=tail), *more),
                self._following,
                path=operations.path("jobs", job_id, "logs"),
            )
        )

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on later: behind the last item. None before the stream began."""
        return self._following.cursor

    @property
    def status(self) -> str:
        """The job's final status, once the iteration is over because it has ended."""
        return self._following.status

    async def __anext__(self) -> LogLine | Gap:
        item: LogLine | Gap = await anext(self._items)
        return item

    async def close(self) -> None:
        """Close the connection."""
        await self._items.aclose()
