"""The client with blocking calls."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from scaimind import models
from scaimind.core import operations
from scaimind.core.cursor import Cursor
from scaimind.core.follow import Following, Gap, LogLine, follow_logs
from scaimind.core.wait import wait_for_jobs
from scaimind.sync_driver import SyncDriver
from scaimind.tokens import Tokens


class Client:
    """A gateway, for one caller. Safe to share between threads; closed by `close` or as a context.

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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._driver = SyncDriver(
            url or os.environ.get("SCAIMIND_URL", ""),
            Tokens(
                key or ("" if token else os.environ.get("SCAIMIND_API_KEY", "")), provider=token
            ),
            verify=verify,
            transport=transport,
        )
        self.jobs = Jobs(self._driver)
        self.evaluations = Evaluations(self._driver)
        self.data = Data(self._driver)
        self.nodes = Nodes(self._driver)

    def cluster(self) -> models.ClusterStatus:
        """Get cluster-wide totals."""
        return self._driver.result(operations.cluster_status())

    def queue(self, queue_name: str | None = None) -> models.GetQueueStatusResponse:
        """Get the tenant's waiting jobs, of all queues unless one is named."""
        return self._driver.result(operations.queue_status(queue_name))

    def summary(self, days: int | None = None) -> models.SummaryAnswer:
        """Get a summary of the tenant's jobs of the last days."""
        return self._driver.result(operations.summary(days))

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Make any request below the API's root; return what its JSON holds."""
        arguments = operations.query(**(query or {}))
        return self._driver.result(operations.plain(method, path, arguments, body))

    def close(self) -> None:
        """Close all connections."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Jobs:
    """Training jobs."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> models.SubmitJobResponse:
        """Queue a job. It is queued once, however often the request has to be repeated."""
        return self._driver.result(operations.submit_job(body, idempotency_key))

    def get(self, job_id: str) -> models.Job:
        """Get a job."""
        return self._driver.result(operations.get_job(job_id))

    def list(
        self,
        *,
        status: Iterable[str] | str | None = None,
        order_by: str | None = None,
        page_size: int | None = None,
    ) -> Iterator[models.Job]:
        """Iterate over the tenant's jobs, newest first unless `order_by` says otherwise."""
        return self._driver.run(operations.list_jobs(status, order_by, page_size))

    def cancel(self, job_id: str, *, reason: str = "") -> models.Job:
        """End a job that has not ended."""
        return self._driver.result(operations.act_on_job(job_id, "cancel", {"reason": reason}))

    def pause(self, job_id: str, *, save_checkpoint: bool = True) -> models.Job:
        """Stop a running job so that it can be resumed."""
        body = {"save_checkpoint": save_checkpoint}
        return self._driver.result(operations.act_on_job(job_id, "pause", body))

    def resume(self, job_id: str, *, checkpoint_id: str = "") -> models.Job:
        """Put a paused job back to work, from its newest checkpoint unless one is named."""
        body = {"checkpoint_id": checkpoint_id}
        return self._driver.result(operations.act_on_job(job_id, "resume", body))

    def retry(self, job_id: str, *, checkpoint_id: str = "") -> models.Job:
        """Make a child job of a failed or preempted one, and return the child."""
        body = {"checkpoint_id": checkpoint_id}
        return self._driver.result(operations.act_on_job(job_id, "retry", body))

    def checkpoints(self, job_id: str) -> Iterator[models.Checkpoint]:
        """Iterate over a job's checkpoints, newest first."""
        return self._driver.run(operations.list_checkpoints(job_id))

    def metrics(
        self, job_id: str, *, max_points: int | None = None
    ) -> models.GetJobMetricsResponse:
        """Get a job's numbers, thinned to `max_points`."""
        return self._driver.result(operations.job_metrics(job_id, max_points))

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        level: str | None = None,
        after: Cursor | str | None = None,
    ) -> "Logs":
        """Iterate over a job's log.

        With `follow`, through everything until the job has ended; a connection
        that breaks is made again for ever. `after` is where to go on; otherwise
        `tail` says how many of the newest lines come first.
        """
        return Logs(self._driver, job_id, follow=follow, tail=tail, level=level, after=after)

    def wait(self, *job_ids: str, timeout: float | None = None) -> dict[str, str]:
        """Wait until each of the jobs has ended; return their final statuses by id.

        `timeout` is in seconds; raises `WaitTimeout` when it is over. A paused
        job has not ended.
        """
        steps = wait_for_jobs(job_ids, timeout=timeout, clock=time.monotonic)
        return self._driver.result(steps)


class Logs(Iterator["LogLine | Gap"]):
    """Lines and gaps of a log, in order, each once."""

    def __init__(
        self,
        driver: SyncDriver,
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

    def __next__(self) -> LogLine | Gap:
        item: LogLine | Gap = next(self._items)
        return item

    def close(self) -> None:
        """Close the connection."""
        self._items.close()


class Evaluations:
    """Evaluations of models."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> models.Evaluation:
        """Queue an evaluation, once."""
        return self._driver.result(operations.submit_evaluation(body, idempotency_key))

    def get(self, evaluation_id: str) -> models.Evaluation:
        """Get an evaluation, with its results once it is complete."""
        return self._driver.result(operations.get_evaluation(evaluation_id))

    def list(self, *, page_size: int | None = None) -> Iterator[models.Job]:
        """Iterate over the tenant's evaluations, newest first."""
        return self._driver.run(operations.list_evaluations(page_size))


class Data:
    """Data sources."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def validate(self, *sources: Mapping[str, Any]) -> models.ValidateDataResponse:
        """Reach and parse data sources without queueing anything."""
        return self._driver.result(operations.validate_data(sources))

    def cache(self, node_id: str | None = None) -> models.DataCache:
        """Get what the data cache holds, on all nodes unless one is named."""
        return self._driver.result(operations.data_cache(node_id))


class Nodes:
    """The cluster's nodes."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def list(self, *, status: str | None = None) -> Iterator[models.Node]:
        """Iterate over the nodes, by id."""
        return self._driver.run(operations.list_nodes(status))

    def get(self, node_id: str) -> models.Node:
        """Get a node."""
        return self._driver.result(operations.get_node(node_id))

    def drain(self, node_id: str, *, force: bool = False, reason: str = "") -> models.Node:
        """Stop scheduling new jobs onto a node; `force` aborts those that run there."""
        body = {"force": force, "reason": reason}
        return self._driver.result(operations.act_on_node(node_id, "drain", body))

    def enable(self, node_id: str) -> models.Node:
        """Take a drained node back into service."""
        return self._driver.result(operations.act_on_node(node_id, "enable", {}))
