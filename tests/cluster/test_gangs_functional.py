"""Gangs on a real Ray cluster: trained by torch, preempted, and driven from a node by force."""

from pathlib import Path

import pytest

from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, EnableNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import RetryJobRequest
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest
from tests.cluster.coordinators import client, coordinator
from tests.cluster.rig import RayCluster
from tests.cluster.test_cluster_functional import all_online, until, whole_log
from tests.coordinator import harness
from tests.coordinator.harness import status_of
from tests.engines.crowd import assert_runs, counting, go
from tests.trainers.conftest import tiny_model, trainers_python
from tests.trainers.test_jobs_functional import request, submit

__all__ = ["tiny_model", "trainers_python"]

pytestmark = pytest.mark.slow

#: Rank 0 saves a checkpoint when it is asked to leave.
LEAVES = """
import os, pathlib, signal, time
folder = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print("resumed" if os.environ["SCAIMIND_RESUME_FROM"] else "fresh", flush=True)
while not asked and not (folder / "go").exists():
    time.sleep(0.02)
if asked and os.environ["RANK"] == "0":
    (folder / "step-1.tmp").mkdir()
    (folder / "step-1.tmp" / "at").write_text("1")
    (folder / "step-1.tmp").rename(folder / "step-1")
print("leaves", flush=True)
"""
ALL_GPUS = {"gpu_count": 6, "node_count": 3}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes that import torch, on a machine that has other things to do."""
    monkeypatch.setattr(harness, "PATIENCE", 400.0)


async def test_ranks_on_three_nodes_train_together(
    ray: RayCluster, tmp_path: Path, tiny_model: Path, trainers_python: Path
) -> None:
    data = tmp_path / "data"
    settings = {"TRAINERS_PYTHON": str(trainers_python)}
    async with coordinator(ray, data, settings=settings) as running, client(running, data) as user:
        await all_online(user)
        asked = request(
            user,
            tiny_model,
            resource_config={"node_count": 3, "cpu_count": 3},
            training_config={"framework": {"distributed": {"world_size": 3}}},
        )
        job_id = await submit(user, asked)
        job = await user.end(job_id)
        entries = await whole_log(user, job_id)
        log = "\n".join(entry.message for entry in entries)
        assert status_of(job) == "COMPLETED", log
        assert "3 processes" in log
        assert len(job.node_ids) == 3
        assert job.progress.step == job.progress.total_steps > 0
        assert (tmp_path / f"data/drive/local/jobs/{job_id}/output").is_dir()


async def test_a_gang_gives_way_as_a_whole_and_goes_on_from_its_checkpoint(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        low = await user.submit(
            LEAVES,
            resource_config=ALL_GPUS,
            scheduling_config={"preemptible": True},
            training_config={"priority": 1},
        )

        async def said(job_id: str, word: str) -> bool:
            page = await user.call("ListJobLogs", ListJobLogsRequest(job_id=job_id, tail=1000))
            return [entry.message for entry in page.entries].count(word) == 3

        await until("the gang runs", lambda: said(low, "fresh"))
        high = await user.submit(
            "print('at last')", resource_config=ALL_GPUS, training_config={"priority": 9}
        )
        job = await user.end(high)
        assert status_of(job) == "COMPLETED", job.error_message
        assert status_of(await user.job(low)) == "PREEMPTED"
        again = (await user.call("RetryJob", RetryJobRequest(job_id=low))).job_id
        await until("the gang goes on", lambda: said(again, "resumed"))
        await go(user, again)
        job = await user.end(again)
        assert status_of(job) == "COMPLETED", job.error_message
        for job_id in (low, again):
            entries = await whole_log(user, job_id)
            texts = [entry.message for entry in entries if entry.source == "stdout"]
            assert texts.count("leaves") == 3
            assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))


async def test_a_gang_leaves_a_node_that_is_drained_by_force(
    ray: RayCluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with coordinator(ray, data) as running, client(running, data) as user:
        await all_online(user)
        job_id = await user.submit(
            counting(),
            resource_config={"gpu_count": 4, "node_count": 2},
            training_config={"max_retries": 3},
        )
        await user.until_line(job_id, "number 5")
        drained = (await user.job(job_id)).node_ids[0]
        await user.call("DrainNode", DrainNodeRequest(node_id=drained, force=True))
        await user.until_line(job_id, "Run 2 begins")
        await go(user, job_id)
        job = await user.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert drained not in job.node_ids
        assert assert_runs(await whole_log(user, job_id), ranks=2) == 2
        await user.call("EnableNode", EnableNodeRequest(node_id=drained))
        await all_online(user)
