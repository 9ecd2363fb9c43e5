"""Evaluations, data and nodes, to be awaited."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from scaimind import models
from scaimind.asynchronous.driver import AsyncDriver
from scaimind.core import operations


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
