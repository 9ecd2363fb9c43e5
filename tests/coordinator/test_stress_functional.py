"""Many short jobs over virtual nodes, with cancels and drains in between."""

import asyncio
import random
from collections import Counter
from pathlib import Path

from app.coordinator.config import parse_virtual_nodes
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, EnableNodeRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import running, status_of

NODES = parse_virtual_nodes(",".join(f"v{n}:2xL4" for n in range(4)))
JOBS = 40


async def test_every_job_ends_and_none_runs_twice(tmp_path: Path) -> None:
    choose = random.Random(4)
    async with running(tmp_path, virtual_nodes=NODES) as (coordinator, client):
        scheduler = coordinator.controller.scheduler
        ids = []
        for _ in range(JOBS):
            ids.append(
                await client.submit(
                    "print('once')",
                    training_config={"priority": choose.randrange(1, 11)},
                    resource_config={"gpu_count": choose.choice([0, 1, 2])},
                )
            )
            scheduler.validate()
            if choose.random() < 0.2:
                chosen = choose.choice(ids)
                if chosen in scheduler.jobs:
                    await client.call("CancelJob", CancelJobRequest(job_id=chosen))
            if choose.random() < 0.3:
                node_id = f"v{choose.randrange(4)}"
                await client.call("DrainNode", DrainNodeRequest(node_id=node_id))
                scheduler.validate()
                await client.call("EnableNode", EnableNodeRequest(node_id=node_id))
        jobs = await asyncio.gather(*(client.end(job_id) for job_id in ids))
        outcomes = Counter(status_of(job) for job in jobs)
        assert set(outcomes) <= {"COMPLETED", "CANCELLED"}
        assert outcomes["COMPLETED"] > JOBS / 2
        for job in jobs:
            said = [entry.message for entry in await client.log(job.job_id)].count("once")
            assert said == 1 if status_of(job) == "COMPLETED" else said <= 1
            assert job.run_count <= 1
        assert not scheduler.jobs
        assert all(not node.job_ids for node in scheduler.cluster.nodes.values())
