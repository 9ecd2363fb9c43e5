"""The client with blocking calls."""

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from scaimind import models
from scaimind.blocking.driver import SyncDriver
from scaimind.blocking.files import Files
from scaimind.blocking.jobs import Jobs
from scaimind.blocking.resources import Data, Evaluations, Nodes
from scaimind.core import operations
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
        self.files = Files(self._driver)

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
