"""The client for an asyncio event loop."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from scaimind import models
from scaimind.async_driver import AsyncDriver
from scaimind.core import operations
from scaimind.core.cursor import Cursor
from scaimind.core.follow import Following, Gap, LogLine, follow_logs
from scaimind.core.wait import wait_for_jobs
from scaimind.tokens import Tokens


class AsyncClient:
    """A gateway, for one caller. For one event loop; closed by `close` or as a context.

    `url` is the gateway's address, `key` an API key or a token; SCAIMIND_URL and
    SCAIMIND_API_KEY stand in for them. `token` brings tokens that end: it is
    called at the first request and after each 401. Every method raises
    `ConnectionFailed` without an answer and `ApiError` for a refusal.
    """

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        token: Callable[[], str] | None = None,
        verify: Any = True,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._driver = AsyncDriver(
            url or os.environ.get("SCAIMIND_URL", ""),
            Tokens(
                key or ("" if token else os.environ.get("SCAIMIND_API_KEY", "")), provider=token
            ),
            verify=verify,
            transport=transport,
        )
        self.jobs = AsyncJobs(self._driver)
        self.evaluations = AsyncEvaluations(self._driver)
        self.data = AsyncData(self._driver)
        self.nodes = AsyncNodes(self._driver)

    async def cluster(self) -> models.ClusterStatus:
        """Get cluster-wide totals."""
        return await self._driver.result(operations.cluster_status())

    async def queue(self, queue_name: str | None = None) -> models.GetQueueStatusResponse:
        """Get the tenant's waiting jobs, of all queues unless one is named."""
        return await self._driver.result(operations.queue_status(queue_name))

    async def summary(self, days: int | None = None) -> models.SummaryAnswer:
        """Get a summary of the tenant's jobs of the last days."""
        return await self._driver.result(operations.summary(days))

    async def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Make any request below the API's root; return what its JSON holds."""
        arguments = operations.query(**(query or {}))
        return await self._driver.result(operations.plain(method, path, arguments, body))

    async def close(self) -> None:
        """Close all connections."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncJobs:
    """Training jobs."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> models.SubmitJobResponse:
        """Queue a job. It is queued once, however often the request has to be repeated."""
        return await self._driver.result(operations.submit_job(body, idempotency_key))

    async def get(self, job_id: str) -> models.Job:
        """Get a job."""
        return await self._driver.result(operations.get_job(job_id))

    def list(
        self,
        *,
        status: Iterable[str] | str | None = None,
        order_by: str | None = None,
        page_size: int | None = None,
    ) -> AsyncIterator[models.Job]:
        """Iterate over the tenant's jobs, newest first unless `order_by` says otherwise."""
        return self._driver.run(operations.list_jobs(status, order_by, page_size))

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

    def checkpoints(self, job_id: str) -> AsyncIterator[models.Checkpoint]:
        """Iterate over a job's checkpoints, newest first."""
        return self._driver.run(operations.list_checkpoints(job_id))

    async def metrics(
        self, job_id: str, *, max_points: int | None = None
    ) -> models.GetJobMetricsResponse:
        """Get a job's numbers, thinned to `max_points`."""
        return await self._driver.result(operations.job_metrics(job_id, max_points))

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        level: str | None = None,
        after: Cursor | str | None = None,
    ) -> "AsyncLogs":
        """Iterate over a job's log.

        With `follow`, through everything until the job has ended; a connection
        that breaks is made again for ever. `after` is where to go on; otherwise
        `tail` says how many of the newest lines come first.
        """
        return AsyncLogs(self._driver, job_id, follow=follow, tail=tail, level=level, after=after)

    async def wait(self, *job_ids: str, timeout: float | None = None) -> dict[str, str]:  # noqa: ASYNC109  # as Client has it
        """Wait until each of the jobs has ended; return their final statuses by id.

        `timeout` is in seconds; raises `WaitTimeout` when it is over. A paused
        job has not ended.
        """
        steps = wait_for_jobs(job_ids, timeout=timeout, clock=time.monotonic)
        return await self._driver.result(steps)


class AsyncLogs(AsyncIterator["LogLine | Gap"]):
    """Lines and gaps of a log, in order, each once."""

    def __init__(
        self,
        driver: AsyncDriver,
        job_id: str,
        *,
        follow: bool,
        tail: int | None,
        level: str | None,
        after: Cursor | str | None,
    ) -> None:
        self._following = Following(cursor=Cursor.parse(after) if isinstance(after, str) else after)
        self._items = driver.run(
            follow_logs(
                job_id,
                operations.query(follow=follow, tail=tail, level=level),
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


class AsyncEvaluations:
    """Evaluations of models."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> models.Evaluation:
        """Queue an evaluation, once."""
        return await self._driver.result(operations.submit_evaluation(body, idempotency_key))

    async def get(self, evaluation_id: str) -> models.Evaluation:
        """Get an evaluation, with its results once it is complete."""
        return await self._driver.result(operations.get_evaluation(evaluation_id))

    def list(self, *, page_size: int | None = None) -> AsyncIterator[models.Job]:
        """Iterate over the tenant's evaluations, newest first."""
        return self._driver.run(operations.list_evaluations(page_size))


class AsyncData:
    """Data sources."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    async def validate(self, *sources: Mapping[str, Any]) -> models.ValidateDataResponse:
        """Reach and parse data sources without queueing anything."""
        return await self._driver.result(operations.validate_data(sources))

    async def cache(self, node_id: str | None = None) -> models.DataCache:
        """Get what the data cache holds, on all nodes unless one is named."""
        return await self._driver.result(operations.data_cache(node_id))


class AsyncNodes:
    """The cluster's nodes."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver

    def list(self, *, status: str | None = None) -> AsyncIterator[models.Node]:
        """Iterate over the nodes, by id."""
        return self._driver.run(operations.list_nodes(status))

    async def get(self, node_id: str) -> models.Node:
        """Get a node."""
        return await self._driver.result(operations.get_node(node_id))

    async def drain(self, node_id: str, *, force: bool = False, reason: str = "") -> models.Node:
        """Stop scheduling new jobs onto a node; `force` aborts those that run there."""
        body = {"force": force, "reason": reason}
        return await self._driver.result(operations.act_on_node(node_id, "drain", body))

    async def enable(self, node_id: str) -> models.Node:
        """Take a drained node back into service."""
        return await self._driver.result(operations.act_on_node(node_id, "enable", {}))
