"""Jobs of several processes: one on each node, or as many as the job asks for."""

import json
from pathlib import Path

import grpc
import pytest

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import running, status_of, submission

NODES = parse_virtual_nodes("a-1:4xL4,a-2:4xL4")
GANG = {"gpu_count": 4, "node_count": 2}

#: All ranks meet at rank 0, as `torch.distributed` has them do, and tell it who they are.
MEETS = """
    import json, os, socket, time
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if rank == 0:
        with socket.create_server(place) as listener:
            met = [int(listener.accept()[0].recv(10)) for _ in range(size - 1)]
        print("met", json.dumps(sorted(met)))
    else:
        while True:
            try:
                peer = socket.create_connection(place)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        peer.sendall(str(rank).encode())
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    own = {name: int(os.environ[name]) for name in names}
    print("own", json.dumps([own, os.environ["SCAIMIND_NODE_ID"], os.environ["SCAIMIND_GPUS"]]))
"""


@pytest.mark.parametrize(("asked", "size"), [(0, 2), (4, 4)])
async def test_ranks_meet_and_share_the_log(tmp_path: Path, asked: int, size: int) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        job_id = await client.submit(
            MEETS,
            resource_config=GANG,
            training_config={"framework": {"distributed": {"world_size": asked}}},
        )
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        entries = await client.log(job_id)
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
        (met,) = [entry for entry in entries if entry.message.startswith("met ")]
        assert met.rank == 0
        assert json.loads(met.message[4:]) == list(range(1, size))
        own = {
            entry.rank: (entry.node_id, *json.loads(entry.message[4:]))
            for entry in entries
            if entry.message.startswith("own ")
        }
        local = size // 2
        assert own == {
            rank: (
                job.node_ids[rank // local],
                {
                    "RANK": rank,
                    "LOCAL_RANK": rank % local,
                    "NODE_RANK": rank // local,
                    "WORLD_SIZE": size,
                    "LOCAL_WORLD_SIZE": local,
                },
                job.node_ids[rank // local],
                "0,1",
            )
            for rank in range(size)
        }


async def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        if os.environ["RANK"] == "1":
            sys.exit("lost my data")
        time.sleep(600)
    """
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        job_id = await client.submit(
            script, resource_config=GANG, training_config={"max_retries": 3}
        )
        job = await client.end(job_id)
        assert (status_of(job), job.exit_code, job.run_count) == ("FAILED", 1, 1)
        assert "lost my data" in job.error_message
        assert "Rank 1 exited with status 1." in [e.message for e in await client.log(job_id)]


async def test_all_ranks_are_asked_to_leave(tmp_path: Path) -> None:
    script = """
        import os, signal, sys, time
        def leave(*_):
            print("rank", os.environ["RANK"], "leaves")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print("rank", os.environ["RANK"], "is here")
        time.sleep(600)
    """
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        job_id = await client.submit(script, resource_config=GANG)
        for rank in (0, 1):
            await client.until_line(job_id, f"rank {rank} is here")
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "CANCELLED"
        lines = [entry.message for entry in await client.log(job_id)]
        assert {"rank 0 leaves", "rank 1 leaves"} <= set(lines)


async def test_a_single_process_is_told_nothing_of_ranks(tmp_path: Path) -> None:
    script = """
        import os
        print("told", "RANK" in os.environ, "WORLD_SIZE" in os.environ)
    """
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        job_id = await client.submit(script, resource_config={"gpu_count": 4})
        await client.until_line(job_id, "told False False")
        await client.end(job_id)


@pytest.mark.parametrize("world_size", [3, -1, 1000])
async def test_ranks_that_cannot_be_spread_are_refused(tmp_path: Path, world_size: int) -> None:
    async with running(tmp_path, virtual_nodes=NODES) as (_, client):
        client.write("train.py", "pass")
        request = submission(resource_config=GANG)
        request.training_config.framework.distributed.world_size = world_size
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "world_size" in str(caught.value.details())
