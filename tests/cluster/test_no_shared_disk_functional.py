"""A job on a real Ray cluster whose nodes share no folder: its files are in S3."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("s3fs")

from tests.cluster import rig
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster, ray_python
from tests.coordinator.harness import status_of
from tests.engines.test_no_shared_disk_functional import (
    SHARDED,
    TRAINING,
    remove,
    submit,
    training,
    tree,
)
from tests.objects.buckets import BUCKET, Bucket, moto_bucket, opened

pytestmark = pytest.mark.slow

PATIENCE = 300.0


class OtherCluster(RayCluster):
    """At addresses of its own: the cluster of the other tests may be up meanwhile."""

    @staticmethod
    def ip_of(number: int) -> str:
        return f"127.0.0.{number + 42}"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with moto_bucket(tmp_path_factory.mktemp("moto")) as found:
        yield found


@pytest.fixture
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """A head and two workers, or as many as the parameter says."""
    monkeypatch.setattr(rig, "HEAD", "127.0.0.42")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as directory:
        cluster = OtherCluster(ray_python(), Path(directory), 28379)
        try:
            cluster.start_head()
            for number in range(1, getattr(request, "param", 2) + 1):
                cluster.start_worker(number)
            yield cluster
        finally:
            cluster.close()


def drive_of(bucket: Bucket) -> dict[str, str]:
    """The settings of a coordinator whose drive is there."""
    return {
        "RAY_SHARED_DISK": "no",
        "DRIVE_URL": f"s3://{BUCKET}/drive",
        "DRIVE_ENDPOINT": f"http://127.0.0.1:{bucket.port}",
        "DRIVE_CREDENTIALS_FILE": str(bucket.credentials),
        "RAY_LOST_NODE_SECONDS": "5",
    }


async def test_a_job_goes_on_at_the_other_node_from_its_checkpoint_in_s3(
    pair: RayCluster, bucket: Bucket, tmp_path: Path
) -> None:
    data, nodes = tmp_path / "data", tmp_path / "data.nodes"
    drive = drive_of(bucket)
    with opened(bucket.place("drive/")) as store:
        async with (
            coordinator(pair, data, settings=drive) as running,
            client(running, data) as user,
            asyncio.timeout(PATIENCE),
        ):
            request = await asyncio.to_thread(training, store, TRAINING)
            request.training_config.max_retries = 2
            job_id = await submit(user, request)
            await user.until_line(job_id, "saved")
            job = await user.until(job_id, lambda job: len(job.checkpoints) == 2)
            (first,) = job.node_ids
            await asyncio.to_thread(pair.kill_worker, int(first[1:]))
            # Nothing of it is left for the other one: neither its records nor its cache.
            await asyncio.to_thread(remove, nodes, first, ".cache")
            entries = await user.log(job_id)
            job = await user.job(job_id)
        said = [entry.message for entry in entries]
        assert status_of(job) == "COMPLETED", (job.error_message, said[-20:])
        assert "goes on from 2 ['.metadata', 'step', 'weights']" in said
        assert job.node_ids != [first]
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-1", "step-2", "step-3"]
        output = job.output_path.removeprefix("scaidrive://") + "/"
        assert await asyncio.to_thread(tree, store, output) == {"deep/model": b"after 2"}
    sys.stdout.write(f"two nodes without a shared folder: started in {pair.started_in}\n")


@pytest.mark.parametrize("pair", [3], indirect=True)
async def test_a_gang_goes_on_from_the_parts_of_all_its_nodes(
    pair: RayCluster, bucket: Bucket, tmp_path: Path
) -> None:
    data, nodes = tmp_path / "data", tmp_path / "data.nodes"
    with opened(bucket.place("drive/")) as store:
        async with (
            coordinator(pair, data, settings=drive_of(bucket)) as running,
            client(running, data) as user,
            asyncio.timeout(PATIENCE),
        ):
            request = await asyncio.to_thread(training, store, SHARDED)
            request.training_config.max_retries = 2
            request.resource_config.gpu_count = 4
            request.resource_config.node_count = 2
            job_id = await submit(user, request)
            job = await user.until(job_id, lambda job: len(job.checkpoints) == 2)
            # Of the node of rank 0 nothing is left, nor of what any node has kept.
            (lost, _) = job.node_ids
            await asyncio.to_thread(pair.kill_worker, int(lost[1:]))
            await asyncio.to_thread(remove, nodes, lost, ".cache")
            entries = await user.log(job_id)
            job = await user.job(job_id)
        said = [entry.message for entry in entries]
        assert status_of(job) == "COMPLETED", (job.error_message, said[-20:])
        whole = {
            "names": "0",
            "optimizer/shard-0": "2 of 0",
            "optimizer/shard-1": "2 of 1",
            "step": "2",
        }
        assert {f"{rank} goes on from {whole}" for rank in (0, 1)} <= set(said)
        assert lost not in job.node_ids
        output = job.output_path.removeprefix("scaidrive://") + "/"
        assert await asyncio.to_thread(tree, store, output) == {"of-0": b"0", "of-1": b"1"}
