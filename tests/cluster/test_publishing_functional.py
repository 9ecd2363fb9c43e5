"""Agents of a real Ray cluster are killed while they bring their parts of checkpoints to S3."""

import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

pytest.importorskip("s3fs")

from generated.mindcoordinator.v1.jobs_pb2 import Job
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import whole_log
from tests.cluster.test_no_shared_disk_functional import drive_of, pair
from tests.coordinator.harness import status_of
from tests.engines.crowd import assert_runs, crowd
from tests.engines.test_no_shared_disk_functional import submit, training, tree
from tests.objects.buckets import Bucket, faulty, moto_bucket, opened

__all__ = ["pair"]

pytestmark = pytest.mark.slow

WATCHERS = 20
KILLS = 8
STEPS = 5
SIZE = 300_000
PATIENCE = 400.0
#: Each of two ranks writes its part of the checkpoints, and counts until it is told to go.
SAVING = f"""
import os, pathlib, sys, time, uuid

checkpoints = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
rank, name, number = os.environ["RANK"], uuid.uuid4().hex, 0


def save(step):
    fresh = checkpoints / f".step-{{step}}.partial"
    fresh.mkdir()
    (fresh / "step").write_text(str(step))
    (fresh / f"shard-{{rank}}").write_text(f"{{step}}{{rank}}" * {SIZE // 2})
    fresh.rename(checkpoints / f"step-{{step}}")


while not (checkpoints / "go").exists():
    number += 1
    sys.stdout.write(f"number {{number}} {{name}}\\n")
    if number % 40 == 0 and number <= {40 * STEPS}:
        save(number // 40)
    time.sleep(0.05)
sys.stdout.write(f"last {{number}} {{name}}\\n")
"""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with moto_bucket(tmp_path_factory.mktemp("moto")) as found:
        yield found


class Strikes:
    """Kills an agent while a file of a checkpoint is on its way, now and then."""

    def __init__(self, ray: RayCluster, chance: random.Random) -> None:
        self._ray = ray
        self._chance = chance
        self._puts = 0
        self._next = 1
        #: The first lines of the requests at which one was killed.
        self.at: list[str] = []

    def fault(self, line: str) -> None:
        """Pass a request on, whoever sends it."""
        if not line.startswith("PUT ") or "/checkpoints/" not in line or len(self.at) == KILLS:
            return
        self._puts += 1
        if self._puts < self._next:
            return
        self._next = self._puts + self._chance.randint(1, 4)
        if agents := self._ray.actors():
            try:
                self._chance.choice(agents).kill()
            except psutil.NoSuchProcess:
                return
            self.at.append(line)


def let_go(nodes: Path, job_id: str) -> None:
    """Let all ranks end: each looks into the folder of its node."""
    for folder in nodes.rglob("checkpoints"):
        if job_id in folder.parts and folder.is_dir():
            (folder / "go").touch()


async def test_a_checkpoint_is_whole_whenever_an_agent_is_killed_that_publishes_it(
    pair: RayCluster, bucket: Bucket, tmp_path: Path, migrated_dsn: str
) -> None:
    data, nodes = tmp_path / "data", tmp_path / "data.nodes"
    strikes = Strikes(pair, random.Random(3))
    with opened(bucket.place("drive/")) as store, faulty(bucket) as proxy:
        proxy.fault = strikes.fault
        drive = {**drive_of(bucket), "DRIVE_ENDPOINT": f"http://127.0.0.1:{proxy.port}"}
        async with (
            coordinator(pair, data, settings=drive) as running,
            client(running, data) as user,
            crowd(migrated_dsn, f"127.0.0.1:{running.port}") as watchers,
            asyncio.timeout(PATIENCE),
        ):
            request = await asyncio.to_thread(training, store, SAVING)
            request.resource_config.gpu_count = 2
            request.resource_config.node_count = 2
            request.output_config.max_checkpoints = 2 * STEPS
            job_id = await submit(user, request)
            watchers.follow(job_id, WATCHERS)

            def done(job: Job) -> bool:
                return len(job.checkpoints) == STEPS and len(strikes.at) == KILLS

            job = await user.until(job_id, done)
            await asyncio.to_thread(let_go, nodes, job_id)
            entries = await whole_log(user, job_id)
            await watchers.until_ended()
            tally = watchers.judged({job_id: entries})
            job = await user.job(job_id)
        folder = f"local/jobs/{job_id}/checkpoints/"
        found = await asyncio.to_thread(tree, store, folder)
    assert status_of(job) == "COMPLETED", job.error_message
    assert assert_runs(entries, ranks=2) == 1
    assert not tally.bad, (tally.lost, tally.doubled, set(tally.wrong))
    assert [each.checkpoint_id for each in job.checkpoints] == [
        f"step-{step}" for step in range(1, STEPS + 1)
    ]
    assert {each.size_bytes for each in job.checkpoints} == {2 * SIZE + 1}
    for step in range(1, STEPS + 1):
        for rank in range(2):
            assert shards(found, step, rank) == [f"{step}{rank}".encode() * (SIZE // 2)]
    sys.stdout.write(f"{tally.clients} watchers got {tally.lines} lines; killed at {strikes.at}\n")


def shards(found: dict[str, bytes], step: int, rank: int) -> Sequence[bytes]:
    """What the drive has of a rank's part of a checkpoint."""
    return [
        content
        for key, content in found.items()
        if f"step-{step}/" in key and key.endswith(f"shard-{rank}")
    ]
