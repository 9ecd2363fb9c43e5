"""Runs on nodes that share no disk: their files come from S3, and go back there."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

pytest.importorskip("s3fs")

from app.coordinator.engines.remote.agent_stream import watch_run
from app.coordinator.engines.remote.driver_client import DriverClient
from app.coordinator.engines.remote.run_files import read_launch
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import JobDir
from app.objects import s3_connection
from generated.mindcoordinator.internal.v1.engine_pb2 import RunRef
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, DataSource, SubmitJobRequest
from tests.coordinator.harness import PATIENCE, Client, config_for, status_of, submission
from tests.engines.direct import DirectCluster, cluster, coordinator_of
from tests.objects.buckets import (
    BUCKET,
    Bucket,
    answer,
    faulty,
    moto_bucket,
    opened,
    write_credentials,
)

if TYPE_CHECKING:
    from app.objects.s3 import S3Store

PREFIX = "team/drive"
FAST = {"ray_lost_node_seconds": 1.0, "stop_grace": 5.0}
#: Saves two checkpoints and waits; one that goes on from a checkpoint ends.
TRAINING = """
import json, os, pathlib, time

config = json.loads(pathlib.Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text())
data = pathlib.Path(config["data_config"]["sources"][0]["local_path"])
checkpoints = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
output = pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"])
resume = os.environ["SCAIMIND_RESUME_FROM"]
print("data", sorted(path.name for path in data.iterdir()), flush=True)
print("secret", len(os.environ["API_TOKEN"]), flush=True)
import beside
print(beside.WORD, flush=True)


def save(step):
    fresh = checkpoints / f".step-{step}.partial"
    fresh.mkdir()
    (fresh / ".metadata").write_text("hidden")
    (fresh / "weights").write_text(str(step) * 1000)
    (fresh / "step").write_text(str(step))
    fresh.rename(checkpoints / f"step-{step}")


if resume:
    step = int(pathlib.Path(resume, "step").read_text())
    print("goes on from", step, sorted(each.name for each in pathlib.Path(resume).iterdir()))
    save(step + 1)
    (output / "deep").mkdir()
    (output / "deep" / "model").write_text(f"after {step}")
else:
    save(1)
    save(2)
    (checkpoints / ".half.partial").mkdir()
    print("saved", flush=True)
    while True:
        print("waits", flush=True)
        time.sleep(0.1)
"""
#: Each of two ranks writes its part of two checkpoints, and waits; those that go on from one end.
SHARDED = """
import os, pathlib, time

checkpoints = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
output = pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"])
resume = os.environ["SCAIMIND_RESUME_FROM"]
rank = os.environ["RANK"]
assert os.environ["SCAIMIND_SHARED_DISK"] == "0"


def save(step):
    fresh = checkpoints / f".step-{step}.partial"
    (fresh / "optimizer").mkdir(parents=True)
    (fresh / "optimizer" / f"shard-{rank}").write_text(f"{step} of {rank}")
    (fresh / "step").write_text(str(step))
    (fresh / "names").write_text(rank)
    fresh.rename(checkpoints / f"step-{step}")


if resume:
    found = sorted(each for each in pathlib.Path(resume).rglob("*") if each.is_file())
    said = {str(each.relative_to(resume)): each.read_text() for each in found}
    print(rank, "goes on from", said, flush=True)
    save(int(said["step"]) + 1)
    (output / f"of-{rank}").write_text(rank)
else:
    save(1)
    save(2)
    print("saved", rank, flush=True)
    while True:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with moto_bucket(tmp_path_factory.mktemp("moto")) as found:
        yield found


@pytest.fixture
def store(bucket: Bucket) -> Iterator["S3Store"]:
    with opened(bucket.place(f"{PREFIX}/")) as found:
        yield found
        found.remove([each.key for each in found.objects("")])


@asynccontextmanager
async def nodes(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[tuple[DirectCluster, Client]]:
    """A coordinator and three nodes."""
    drive = {
        "engine": "ray",
        "drive_url": f"s3://{BUCKET}/{PREFIX}",
        "drive_endpoint": f"http://127.0.0.1:{port or bucket.port}",
        "drive_credentials_file": bucket.credentials,
        **FAST,
        **settings,
    }
    (tmp_path / "data").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(tmp_path / "data", **drive)
        async with (
            cluster(tmp_path, f"{folder}/s", config) as direct,
            coordinator_of(direct, tmp_path, monkeypatch, **drive) as (_, client),
        ):
            yield direct, client


def training(store: "S3Store", script: str = TRAINING, **changes: Any) -> SubmitJobRequest:
    """A submission of a script in a folder of its own, with data; both are in the store."""
    files = {"code/train.py": script, "code/beside.py": "WORD = 'beside'", "data/a.jsonl": "{}\n"}
    for name, text in {**files, "data/b.jsonl": "{}\n"}.items():
        store.write(f"local/{name}", text.encode())
    request = submission(**changes)
    framework = request.training_config.framework
    framework.custom_script_path = "train.py"
    framework.config["working_dir"] = "scaidrive://local/code"
    request.data_config.sources.append(DataSource(path="scaidrive://local/data"))
    request.training_config.environment["API_TOKEN"] = "nobody-sees-this-value"
    return request


async def submit(client: Client, request: SubmitJobRequest) -> str:
    job_id: str = (await client.call("SubmitJob", request)).job_id
    return job_id


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.02)


async def until_gone(store: "S3Store", prefix: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(tree, store, prefix):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.1)


def remove(nodes: Path, *names: str) -> None:
    """Remove what nodes keep, or their cache."""
    for name in names:
        (found,) = nodes.glob(f"*/{name}")
        # Processes of a lost node may be ending there yet.
        shutil.rmtree(found, ignore_errors=True)


def tree(store: "S3Store", prefix: str) -> dict[str, bytes]:
    found = {}
    for each in store.objects(prefix):
        found[each.key.removeprefix(prefix)] = store.read(each.key, limit=1 << 20)
    return found


async def test_a_lost_nodes_job_goes_on_at_another_from_its_checkpoint_and_is_exported(
    bucket: Bucket, store: "S3Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(bucket, tmp_path, monkeypatch) as (direct, client):
        request = await asyncio.to_thread(training, store)
        request.training_config.max_retries = 2
        job_id = await submit(client, request)
        await client.until_line(job_id, "saved")
        job = await client.until(job_id, lambda job: len(job.checkpoints) == 2)
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-1", "step-2"]
        assert [each.size_bytes for each in job.checkpoints] == [1007, 1007]
        (first,) = job.node_ids
        await direct.lose(first)
        # Its disk goes with it.
        await asyncio.to_thread(remove, tmp_path / "nodes", first)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        said = [entry.message for entry in entries]
        assert "data ['a.jsonl', 'b.jsonl']" in said
        assert "secret 22" in said
        assert "goes on from 2 ['.metadata', 'step', 'weights']" in said
        (second,) = job.node_ids
        assert second != first
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-1", "step-2", "step-3"]
        assert job.output_path == f"scaidrive://local/jobs/{job_id}/output"
        folder = f"local/jobs/{job_id}"
        assert await asyncio.to_thread(tree, store, f"{folder}/output/") == {
            "deep/model": b"after 2"
        }
        own = f"{folder}/checkpoints/.parts/2/0/step-3/"
        checkpoints = await asyncio.to_thread(tree, store, own)
        assert checkpoints["weights"] == b"3" * 1000
        # What was kept for the export alone goes with it.
        await until_gone(store, f"{folder}/.kept/")
        everything = b"".join((await asyncio.to_thread(tree, store, "")).values())
        assert b"nobody-sees" not in everything
        assert "nobody-sees" not in json.dumps(said)


async def test_a_store_that_is_away_fails_no_job_and_a_job_that_waits_for_it_can_be_cancelled(
    bucket: Bucket, store: "S3Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'import os, pathlib; pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"], "a").touch()'
    # A call that fails has been tried often enough; who waits for it tries again.
    once = partial(s3_connection.S3Place, attempts=1, rounds=1)
    monkeypatch.setattr(s3_connection, "S3Place", once)
    with faulty(bucket) as proxy:
        async with nodes(bucket, tmp_path, monkeypatch, port=proxy.port) as (_, client):
            request = await asyncio.to_thread(training, store, script)
            slow_down = answer("503 Slow Down", "SlowDown")
            # A submission asks what is there; only a node reads the script.
            proxy.fault = lambda line: slow_down if "/code/train.py" in line else None
            jobs = [await submit(client, request) for _ in range(2)]
            for job_id in jobs:
                await client.until_status(job_id, "TRAINING")
            await until(lambda: any("/code/train.py" in line for line in proxy.seen))
            proxy.fault = lambda _: slow_down
            await client.call("CancelJob", CancelJobRequest(job_id=jobs[0]))
            cancelled = await client.end(jobs[0])
            assert status_of(cancelled) == "CANCELLED"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await submit(client, request)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            proxy.fault = lambda _: None
            job = await client.end(jobs[1])
            assert status_of(job) == "COMPLETED", job.error_message
            assert await asyncio.to_thread(tree, store, f"local/jobs/{jobs[1]}/output/") == {
                "a": b""
            }


async def test_what_only_an_operator_can_mend_fails_the_job_with_that_message(
    bucket: Bucket, store: "S3Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(bucket.credentials.read_text())
    drive: dict[str, Any] = {"drive_credentials_file": credentials}
    async with nodes(bucket, tmp_path, monkeypatch, **drive) as (_, client):
        request = await asyncio.to_thread(training, store, "")
        # Each run reads the file anew; the coordinator has read it.
        write_credentials(credentials, "AKIAWRONG", "wrong")
        job = await client.end(await submit(client, request))
        assert status_of(job) == "FAILED"
        assert "the drive refuses its credentials (InvalidAccessKeyId)" in job.error_message
        write_credentials(credentials, "", "").write_text(bucket.credentials.read_text())
        job_id = await submit(client, request)
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        missing = await asyncio.to_thread(training, store, "")
        missing.data_config.sources[0].path = "scaidrive://local/none"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await submit(client, missing)
        assert "does not exist" in (refused.value.details() or "")


async def test_what_ranks_write_on_several_nodes_is_one_output_which_is_registered(
    bucket: Bucket, store: "S3Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import os, pathlib
rank = os.environ["RANK"]
pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"], f"of-{rank}").write_text(rank)
pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"], f"of-{rank}.pt").write_text(rank)
print("rank", rank, flush=True)
"""
    async with nodes(bucket, tmp_path, monkeypatch) as (_, client):
        request = await asyncio.to_thread(training, store, script)
        request.resource_config.gpu_count = 6
        request.resource_config.node_count = 3
        request.output_config.register_model = True
        request.output_config.model_name = "model"
        job_id = await submit(client, request)
        said = [entry.message for entry in await client.log(job_id)]
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", (job.error_message, said)
        assert {"rank 0", "rank 1", "rank 2"} <= set(said)
        names = sorted(each.checkpoint_id for each in job.checkpoints)
        assert names == ["of-0.pt", "of-1.pt", "of-2.pt"]
        output = await asyncio.to_thread(tree, store, f"local/jobs/{job_id}/output/")
        assert output == {f"of-{rank}": str(rank).encode() for rank in range(3)}
        model = await asyncio.to_thread(tree, store, ".atlas/local/model/1/files/")
        assert model == output
        # It is there for the next job, by its newest version.
        uses = await asyncio.to_thread(
            training,
            store,
            """
import json, os, pathlib
config = json.loads(pathlib.Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text())
base = pathlib.Path(config["training_config"]["base_model"]["local_path"])
print("base", sorted(each.name for each in base.iterdir()), flush=True)
""",
        )
        uses.training_config.base_model.model_id = "scaiatlas://local/model"
        entries = await client.log(await submit(client, uses))
        assert "base ['of-0', 'of-1', 'of-2']" in [entry.message for entry in entries]


async def test_each_node_publishes_its_part_and_goes_on_from_all_of_them(
    bucket: Bucket, store: "S3Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(bucket, tmp_path, monkeypatch) as (direct, client):
        request = await asyncio.to_thread(training, store, SHARDED)
        request.training_config.max_retries = 2
        request.resource_config.gpu_count = 4
        request.resource_config.node_count = 2
        request.output_config.max_checkpoints = 2
        job_id = await submit(client, request)
        job = await client.until(job_id, lambda job: len(job.checkpoints) == 2)
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-1", "step-2"]
        # Two shards, and once what both have written.
        assert [each.size_bytes for each in job.checkpoints] == [14, 14]
        lost = job.node_ids[1]
        await direct.lose(lost)
        await asyncio.to_thread(remove, tmp_path / "nodes", lost)
        entries = await client.log(job_id)
        job = await client.job(job_id)
        said = [entry.message for entry in entries]
        assert status_of(job) == "COMPLETED", (job.error_message, said)
        assert lost not in job.node_ids
        whole = {
            "names": "0",
            "optimizer/shard-0": "2 of 0",
            "optimizer/shard-1": "2 of 1",
            "step": "2",
        }
        assert {f"{rank} goes on from {whole}" for rank in (0, 1)} <= set(said)
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-2", "step-3"]
        folder = f"local/jobs/{job_id}"
        assert await asyncio.to_thread(tree, store, f"{folder}/output/") == {
            "of-0": b"0",
            "of-1": b"1",
        }
        # Of the checkpoint over the number to keep, and of the output as it was kept, nothing is
        # left.
        await until_gone(store, f"{folder}/.kept/")
        keys = await asyncio.to_thread(tree, store, f"{folder}/checkpoints/")
        assert not [key for key in keys if "step-1" in key]


@pytest.mark.parametrize("lives", [True, False], ids=["alive", "ended"])
async def test_a_part_that_is_ended_by_force_says_so_unless_it_has_brought_all_away(
    bucket: Bucket,
    store: "S3Store",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lives: bool,
) -> None:
    script = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(1)" if lives else ""
    async with nodes(bucket, tmp_path, monkeypatch) as (direct, client):
        job_id = await submit(client, await asyncio.to_thread(training, store, script))
        if lives:
            await client.until_line(job_id, "begun")
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        (node_id,) = (await client.end(job_id)).node_ids
        launched = read_launch(JobDir(tmp_path / "data" / "jobs" / job_id).run(1))
        assert launched is not None
        driver = DriverClient(direct.socket)
        async with asyncio.timeout(PATIENCE):
            while (job_id, 1) in await driver.list_runs(node_id):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.1)
        # Once more, without a coordinator that follows it and has it forgotten.
        run = launched.ref(node_id, term=1 << 40)
        secrets = {"API_TOKEN": "nobody-sees-this-value"}
        part = launched.part(node_id, address="", port=0, secrets=secrets)
        await driver.start_run(run, part)
        ended = RunEnd(exit_code=None, failure="The run was ended by force.", transient=True)
        if not lives:
            ended = RunEnd(exit_code=0)
            assert await end_of(driver, run) == ended
        await driver.kill_run(run)
        assert await end_of(driver, run) == ended
        # By whoever asks next, too.
        await direct.kill_agents(node_id)
        assert await end_of(driver, run) == ended
        await driver.close()


async def end_of(driver: DriverClient, run: RunRef) -> RunEnd:
    """How a part says that it ended."""
    async with asyncio.timeout(PATIENCE):
        agent = await driver.open_run(run)
        stream = watch_run(agent, run, epoch="", after_line=0, after_snapshot=0)
        async with aclosing(stream) as messages:
            async for message in messages:
                if message.end:
                    return RunEnd(**json.loads(message.end))
    raise AssertionError("it told of no end")
