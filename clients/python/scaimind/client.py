"""The client with blocking calls."""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from scaimind import models
from scaimind.blocking.driver import SyncDriver
from scaimind.blocking.events import Events
from scaimind.blocking.files import Files
from scaimind.blocking.jobs import Jobs
from scaimind.blocking.resources import Data, Evaluations, Nodes
from scaimind.core import operations
from scaimind.tokens import Tokens


class Client:
    """A gateway, for one caller. Safe to share between threads; closed by `close` or as a context.

    `url` is the gateway's address, `key` an API key or a token; SCAIMIND_URL and
    SCAIMIND_API_KEY stand in for them. `token` brings tokens that end: it is
    called at the first request and after each 401. With `fail_fast` nothing is
    tried again before there was an answer once. Every method raises
    `ConnectionFailed` without an answer and `ApiError` for a refusal.
    """

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        token: Callable[[], str] | None = None,
        verify: Any = True,
        fail_fast: bool = False,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._driver = SyncDriver(
            url or os.environ.get("SCAIMIND_URL", ""),
            Tokens(
                key or ("" if token else os.environ.get("SCAIMIND_API_KEY", "")), provider=token
            ),
            verify=verify,
            fail_fast=fail_fast,
            transport=transport,
        )
        self.jobs = Jobs(self._driver)
        self.evaluations = Evaluations(self._driver)
        self.data = Data(self._driver)
        self.nodes = Nodes(self._driver)
        self.files = Files(self._driver)

    def cluster(self) -> models.ClusterStatus:
        """Get cluster-wide totals."""
        return self._driver.result(operations.cluster_status())

    def queue(
        self,
        queue_name: str | None = None,
        *,
        page_size: int | None = None,
        page_token: str | None = None,
    ) -> models.GetQueueStatusResponse:
        """Get a page of the tenant's waiting jobs, of all queues unless one is named."""
        return self._driver.result(operations.queue_status(queue_name, page_size, page_token))

    def summary(self, days: int | None = None) -> models.SummaryAnswer:
        """Get a summary of the tenant's jobs of the last days."""
        return self._driver.result(operations.summary(days))

    def events(
        self,
        *,
        job_id: Iterable[str] | str | None = None,
        status: Iterable[str] | str | None = None,
        label: Iterable[str] | str | None = None,
        user_id: Iterable[str] | str | None = None,
        ended_after: datetime | str | None = None,
        include: Iterable[str] = ("jobs",),
        tail: int | None = None,
        interval: int | None = None,
        after: str | None = None,
        level: str | None = "DEBUG",
        rank: Iterable[int] | int | None = None,
        source: Iterable[str] | str | None = None,
        contains: str | None = None,
        matches: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> Events:
        """Iterate over what happens to many jobs, without end, with their state kept.

        Without `job_id`, `status` and `ended_after` (a time, or `10m` for so long
        ago) it is about the jobs that have not ended, and those that did in the
        last hour; a new job that matches joins by itself. `include` is of jobs,
        logs, metrics, nodes and queue; a `label` is `key=value`. `after` is the
        `cursor` of an earlier one. The last arguments are conditions of lines, as
        of `jobs.logs`.
        """
        arguments = operations.query(
            job_id=job_id,
            status=status,
            label=label,
            user_id=user_id,
            ended_after=ended_after,
            include=",".join(include),
            tail=tail,
            interval=interval,
            level=level,
            rank=rank,
            source=source,
            contains=contains,
            matches=matches,
            since=since,
            until=until,
        )
        return Events(self._driver, arguments, after)

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Make any request below the API's root; return what its JSON holds, or its text."""
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
