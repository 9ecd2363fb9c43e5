"""Pause, resume, retry, preemption, drains and limits, with real processes."""

import os
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.cluster_pb2 import (
    DrainNodeRequest,
    EnableNodeRequest,
    GetClusterStatusRequest,
    GetNodeRequest,
    ListNodesRequest,
    NodeStatus,
)
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResourceConfig,
    ResumeJobRequest,
    RetryJobRequest,
)
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest
from tests.coordinator.harness import running, status_of, submission
from tests.coordinator.scripts import COUNTS, WAITS, counted, counting

NODES = parse_virtual_nodes("a-1:4xA100-80GB:zone=a,a-2:4xA100-80GB:zone=b")


def refused(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return caught.value.code(), str(caught.value.details())


async def test_pause_with_a_checkpoint_and_resume(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(COUNTS, training_config={"environment": counting(150, 20)})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        assert refused(caught)[0] is grpc.StatusCode.FAILED_PRECONDITION
        await client.until_line(job_id, "count 20")
        pause = PauseJobRequest(job_id=job_id, save_checkpoint=True)
        assert status_of(await client.call("PauseJob", pause)) == "CHECKPOINTING"
        job = await client.until_status(job_id, "PAUSED")
        (checkpoint,) = job.checkpoints
        assert checkpoint.step >= 20
        assert checkpoint.path.startswith(f"scaidrive://local/jobs/{job_id}/checkpoints/")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("PauseJob", pause)
        assert "PAUSED" in refused(caught)[1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ResumeJob", ResumeJobRequest(job_id=job_id, checkpoint_id="none"))
        assert checkpoint.checkpoint_id in refused(caught)[1]
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED"
        assert job.run_count == 2
        entries = await client.log(job_id)
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
        assert counted(entries) == list(range(1, 151))
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=job_id))
        assert [point.step for point in metrics.points] == list(range(1, 151))
        assert [point.sequence for point in metrics.points] == list(range(1, 151))


async def test_pause_without_a_checkpoint_starts_afresh(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(COUNTS, training_config={"environment": counting(40, 3)})
        await client.until_line(job_id, "count 3")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id))
        job = await client.until_status(job_id, "PAUSED")
        assert not job.checkpoints
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "COMPLETED"
        counts = counted(await client.log(job_id))
        assert counts.count(1) == 2
        assert counts[-1] == 40


async def test_a_failed_job_is_retried_as_a_child(tmp_path: Path) -> None:
    script = """
        import os, sys
        resume = os.environ["SCAIMIND_RESUME_FROM"]
        print("from", os.path.basename(resume))
        if not resume:
            os.mkdir(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-7")
            sys.exit(3)
    """
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        parent = await client.submit(script, training_config={"max_retries": 5})
        job = await client.end(parent)
        assert (status_of(job), job.exit_code, job.run_count) == ("FAILED", 3, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("RetryJob", RetryJobRequest(job_id=parent, modify_resources=True))
        assert refused(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT
        child = await client.call(
            "RetryJob",
            RetryJobRequest(
                job_id=parent,
                checkpoint_id="step-7",
                modify_resources=True,
                new_resource_config=ResourceConfig(gpu_count=2, gpu_type="A100-80GB"),
            ),
        )
        assert child.parent_job_id == parent
        assert child.resource_config.gpu_count == 2
        done = await client.end(child.job_id)
        assert status_of(done) == "COMPLETED"
        assert done.node_ids[0] in ("a-1", "a-2")
        assert "from step-7" in [entry.message for entry in await client.log(child.job_id)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("RetryJob", RetryJobRequest(job_id=child.job_id))
        assert "COMPLETED" in refused(caught)[1]


async def test_a_job_of_higher_priority_preempts_and_the_preempted_is_retried(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, virtual_nodes=NODES[:1]) as (_, client):
        gpus = {"gpu_count": 4}
        low = await client.submit(
            COUNTS,
            training_config={"environment": counting(100, 10), "priority": 2},
            resource_config=gpus,
            scheduling_config={"preemptible": True},
        )
        await client.until_line(low, "count 10")
        high = await client.submit(
            "print('mine')", training_config={"priority": 8}, resource_config=gpus
        )
        job = await client.end(low)
        assert status_of(job) == "PREEMPTED"
        assert "priority 8" in job.message
        assert status_of(await client.end(high)) == "COMPLETED"
        child = await client.call(
            "RetryJob",
            RetryJobRequest(job_id=low, checkpoint_id=job.checkpoints[-1].checkpoint_id),
        )
        assert status_of(await client.end(child.job_id)) == "COMPLETED"
        counts = counted(await client.log(low)) + counted(await client.log(child.job_id))
        assert counts == list(range(1, 101))


async def test_drain_and_enable(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        where = {"node_ids": ["a-1"]}
        running_job = await client.submit(
            WAITS, scheduling_config=where, resource_config={"gpu_count": 1}
        )
        await client.until_line(running_job, "ready")
        node = await client.call("DrainNode", DrainNodeRequest(node_id="a-1", reason="dust"))
        assert node.status == NodeStatus.NODE_STATUS_DRAINING
        assert (node.drain_reason, node.allocated_gpus, node.virtual) == ("dust", 1, True)
        assert list(node.running_job_ids) == [running_job]
        assert [gpu.job_id for gpu in node.gpus if gpu.allocated] == [running_job]
        other = await replace(client, tenant="other").call("GetNode", GetNodeRequest(node_id="a-1"))
        assert (other.allocated_gpus, other.running_jobs) == (1, 1)
        assert not [gpu.job_id for gpu in other.gpus if gpu.job_id]
        waiting = await client.submit("pass", scheduling_config=where)
        queue = await client.call("GetQueueStatus", GetQueueStatusRequest())
        assert [(job.job_id, job.position) for job in queue.queued_jobs] == [(waiting, 1)]
        listed = await client.call("ListNodes", ListNodesRequest(status_filter="DRAINING"))
        assert [node.node_id for node in listed.nodes] == ["a-1"]
        totals = await client.call("GetClusterStatus", GetClusterStatusRequest())
        assert (totals.total_nodes, totals.online_nodes, totals.draining_nodes) == (3, 2, 1)
        assert (totals.total_gpus, totals.allocated_gpus, totals.available_gpus) == (8, 1, 4)
        assert (totals.active_jobs, totals.queued_jobs) == (1, 1)
        await client.call("DrainNode", DrainNodeRequest(node_id="a-1", force=True))
        job = await client.end(running_job)
        assert status_of(job) == "FAILED"
        assert "drained by force" in job.error_message
        node = await client.call("GetNode", GetNodeRequest(node_id="a-1"))
        assert node.status == NodeStatus.NODE_STATUS_DRAINED
        assert status_of(await client.job(waiting)) == "QUEUED"
        node = await client.call("EnableNode", EnableNodeRequest(node_id="a-1"))
        assert node.status == NodeStatus.NODE_STATUS_ONLINE
        assert status_of(await client.end(waiting)) == "COMPLETED"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("DrainNode", DrainNodeRequest(node_id="nowhere"))
        assert refused(caught)[0] is grpc.StatusCode.NOT_FOUND


async def test_an_evicted_job_with_retries_left_goes_on_elsewhere(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        job_id = await client.submit(
            COUNTS,
            training_config={"environment": counting(100, 10), "max_retries": 1},
            resource_config={"gpu_count": 4},
        )
        await client.until_line(job_id, "count 10")
        (first,) = (await client.job(job_id)).node_ids
        await client.call("DrainNode", DrainNodeRequest(node_id=first, force=True))
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED"
        assert list(job.node_ids) == [{"a-1": "a-2", "a-2": "a-1"}[first]]
        assert counted(await client.log(job_id)) == list(range(1, 101))


async def test_drains_outlive_the_coordinator(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        await client.call("DrainNode", DrainNodeRequest(node_id="a-2", reason="fan"))
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        node = await client.call("GetNode", GetNodeRequest(node_id="a-2"))
        assert (node.status, node.drain_reason) == (NodeStatus.NODE_STATUS_DRAINED, "fan")


async def test_gangs_are_placed_on_all_their_nodes_or_wait(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        one = await client.submit(WAITS, resource_config={"gpu_count": 1})
        await client.until_line(one, "ready")
        gang = await client.submit("pass", resource_config={"gpu_count": 8, "node_count": 2})
        assert status_of(await client.job(gang)) == "QUEUED"
        await client.call("CancelJob", CancelJobRequest(job_id=one))
        job = await client.end(gang)
        assert (status_of(job), sorted(job.node_ids)) == ("COMPLETED", ["a-1", "a-2"])


async def test_what_no_node_could_ever_give_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        client.write("train.py", "pass")
        for resources in (
            {"gpu_count": 5},
            {"gpu_count": 1, "gpu_type": "H100"},
            {"gpu_count": 12, "node_count": 3},
            {"gpu_count": 1, "gpu_memory_bytes": 81 * 1024**3},
            {"memory_bytes": 1 << 60},
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("SubmitJob", submission(resource_config=resources))
            code, details = refused(caught)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "a-1 (4x A100-80GB" in details
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(
                "SubmitJob", submission(resource_config={"gpu_count": 3, "node_count": 2})
            )
        assert refused(caught)[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_job_does_not_start_before_its_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        when = Timestamp()
        when.FromNanoseconds(time.time_ns() + 5_000_000_000)
        job_id = await client.submit("pass", scheduling_config={"not_before": when})
        assert status_of(await client.job(job_id)) == "PENDING"
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED"
        assert job.started_at.ToNanoseconds() >= when.ToNanoseconds()


async def test_a_run_ends_after_its_maximum_run_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS, scheduling_config={"max_runtime_seconds": 1})
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert "max_runtime_seconds of 1" in job.error_message


async def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    script = """
        import os
        for step in (1, 2, 30):
            os.mkdir(os.environ["SCAIMIND_CHECKPOINT_DIR"] + f"/step-{step}")
        os.mkdir(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-31.tmp")
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script, output_config={"max_checkpoints": 2})
        job = await client.end(job_id)
        assert [checkpoint.step for checkpoint in job.checkpoints] == [2, 30]


async def test_a_link_in_the_artefacts_leads_nowhere(tmp_path: Path) -> None:
    script = """
        import os
        os.symlink("/etc/hostname", os.environ["SCAIMIND_OUTPUT_DIR"] + "/link")
        open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "w").close()
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script)
        job = await client.end(job_id)
        assert job.output_path == f"scaidrive://local/jobs/{job_id}/output"
        assert os.listdir(client.drive / f"local/jobs/{job_id}/output") == ["model"]


async def test_checkpoints_that_lead_out_are_none(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        # Somebody who can write the drive.
        folder = client.drive / f"local/jobs/{job_id}/checkpoints"
        folder.rmdir()
        folder.symlink_to("/")
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        job = await client.end(job_id)
        assert (status_of(job), list(job.checkpoints)) == ("CANCELLED", [])
