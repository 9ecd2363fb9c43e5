"""An object store that takes connections and says nothing holds up no job that has to end."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("s3fs")

from app.coordinator.engines.agent import file_calls
from app.coordinator.execution import job_tasks
from app.objects import s3_connection
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import PATIENCE, status_of
from tests.engines.test_no_shared_disk_functional import (
    TRAINING,
    bucket,
    nodes,
    store,
    submit,
    training,
)
from tests.objects.buckets import Bucket, FaultyProxy, faulty

if TYPE_CHECKING:
    from app.objects.s3 import S3Store

__all__ = ["bucket", "store"]
#: Much less than a store is waited for.
SOON = PATIENCE
HANGS = 4 * PATIENCE


class Hanging:
    """Has a proxy keep requests, while it is set, until it is let go."""

    def __init__(self, proxy: FaultyProxy) -> None:
        self._let_go = threading.Event()
        self._proxy = proxy
        self.kept = 0

    def begin(self) -> None:
        self._proxy.fault = self._keep

    def let_go(self) -> None:
        self._proxy.fault = lambda _: None
        self._let_go.set()

    def _keep(self, line: str) -> int:
        self.kept += 1
        self._let_go.wait(HANGS)
        return 0


@pytest.fixture
def hanging(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Hanging]]:
    # Asks once, and waits for the answer; no more once the store is back.
    once = partial(s3_connection.S3Place, patience=(10.0, HANGS), attempts=1, rounds=1)
    monkeypatch.setattr(s3_connection, "S3Place", once)
    monkeypatch.setattr(file_calls, "_STILL", 1.0)
    monkeypatch.setattr(job_tasks, "STORE_PATIENCE", 1.0)
    with faulty(bucket) as proxy:
        found = Hanging(proxy)
        try:
            yield proxy.port, found
        finally:
            found.let_go()


@pytest.mark.parametrize(
    "why",
    ["cancel", *(pytest.param(each, marks=pytest.mark.slow) for each in ("drain", "stop"))],
)
async def test_a_job_ends_within_its_grace_though_the_store_says_nothing(
    bucket: Bucket,
    store: "S3Store",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hanging: tuple[int, Hanging],
    why: str,
) -> None:
    port, store_hangs = hanging
    settings = {"stop_grace": 2.0}
    async with AsyncExitStack() as stack:
        _, client = await stack.enter_async_context(
            nodes(bucket, tmp_path, monkeypatch, port=port, **settings)
        )
        request = await asyncio.to_thread(training, store, TRAINING)
        request.training_config.max_retries = 2
        job_id = await submit(client, request)
        job = await client.until(job_id, lambda job: len(job.checkpoints) == 2)
        (node_id,) = job.node_ids
        store_hangs.begin()
        async with asyncio.timeout(SOON):
            if why == "cancel":
                await client.call("CancelJob", CancelJobRequest(job_id=job_id))
                assert status_of(await client.end(job_id)) == "CANCELLED"
            elif why == "drain":
                await client.call("DrainNode", DrainNodeRequest(node_id=node_id, force=True))
                await client.until(job_id, lambda job: node_id not in job.node_ids)
            else:
                # As before another one takes over.
                await stack.aclose()
        assert store_hangs.kept
        store_hangs.let_go()
        if why == "drain":
            job = await client.end(job_id)
            assert status_of(job) == "COMPLETED", job.error_message
        if why != "stop":
            said = [entry.message for entry in await client.log(job_id)]
            assert any("is dropped" in each for each in said)
