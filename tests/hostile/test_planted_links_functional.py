"""Links that a job lays where the coordinator writes or reads lead it nowhere.

At the level where a job has a user and a view of its own, and at the one where
it is the coordinator's user: what the coordinator follows is the same at all.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from tests.coordinator.harness import Client, status_of
from tests.hostile.canary import Canary
from tests.hostile.cases import script
from tests.hostile.machine import HOSTILE, Machine
from tests.hostile.wellbeing import FINE, all_is_well

pytestmark = pytest.mark.levels("namespaces", "landlock")

#: Lays a link under every name that might be written next in a folder.
_LINKS = """
W = os.getcwd()
J = os.path.dirname(W)
own = os.path.basename(sys.argv[0])
def lay(folder, *names):
    for name in names:
        for each in (name, f".{name}", f"{name}.new", f"{name}.partial", f".{name}.partial",
                     f"{name}.tmp", f".{name}.tmp", f".{name}.new"):
            try:
                os.symlink(CANARY, f"{folder}/{each}")
            except OSError:
                pass
"""


@pytest.fixture
def canary(isolated: Machine) -> Iterator[Canary]:
    """Must be as it was when the test is over, and nowhere else."""
    folder = isolated.path.parent / "canary"
    shutil.rmtree(folder, ignore_errors=True)
    canary = Canary.at(folder / "secret")
    yield canary
    canary.is_untouched()
    canary.is_unread(isolated.path)


def aimed_at(canary: Canary, body: str) -> str:
    return script(f"CANARY = {str(canary.path)!r}\n{_LINKS}\n{body}")


async def test_beside_its_script_before_a_retry(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            aimed_at(
                canary,
                """
lay(W, own, "config.json", "run.json", "metrics.jsonl", "exit.json")
lay(O, own, "results.json")
lay(T, own)
lay(C, own, "step-1")
try:
    lay(J, "config.json", "lock", "format", "program", "export")
    os.rename(W + "/" + own, W + "/moved")
    os.symlink(CANARY, W + "/" + own)
except OSError:
    pass
os.kill(os.getpid(), 9)
""",
            ),
            training_config={"max_retries": 1},
        )
    (told,) = await all_is_well(isolated, job_id)
    assert (status_of(told.job), told.job.run_count) == ("FAILED", 2)


async def test_beside_its_script_before_it_is_resumed(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            aimed_at(
                canary,
                """
import signal, time
if os.path.lexists(W + "/again"):
    sys.exit(0)
def leave(*_):
    os.mkdir(C + "/step-1")
    os.symlink(CANARY, C + "/step-1/weights")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
lay(W, own)
open(W + "/again", "w")
print("ready", flush=True)
time.sleep(600)
""",
            )
        )
        await client.until_line(job_id, "ready")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        await client.until_status(job_id, "PAUSED")
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
    (told,) = await all_is_well(isolated, job_id)
    assert (status_of(told.job), told.job.run_count) == ("COMPLETED", 2)


async def lays(client: Client, canary: Canary, body: str) -> str:
    """A job that has laid its links, and stays."""
    job_id = await client.submit(
        aimed_at(canary, body + '\nimport time\nprint("ready", flush=True)\ntime.sleep(600)')
    )
    await client.until_line(job_id, "ready")
    return job_id


async def test_where_another_job_exports(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        there = await lays(
            client,
            canary,
            """
os.mkdir(C + "/out")
lay(C + "/out", "model.bin", "deep", "more")
os.symlink(os.path.dirname(CANARY), C + "/out/link")
os.symlink(os.path.dirname(CANARY), C + "/link")
open(C + "/file", "w")
os.mkfifo(C + "/fifo")
""",
        )
        exports = script(
            """
open(O + "/model.bin", "w").write("model")
os.mkdir(O + "/deep")
open(O + "/deep/more", "w").write("more")
open(O + "/secret", "w").write("not the canary")
"""
        )
        checkpoints = f"scaidrive://{HOSTILE}/jobs/{there}/checkpoints"
        for where in ("link", "out/link/below", "file", "fifo"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.submit(exports, output_config={"path": f"{checkpoints}/{where}"})
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, where
        job_ids = [
            await client.submit(exports, output_config={"path": f"{checkpoints}/{where}"})
            for where in ("out", "fresh")
        ]
        for job_id in job_ids:
            await client.end(job_id)
        await client.call("CancelJob", CancelJobRequest(job_id=there))
    _, out, fresh = await all_is_well(isolated, there, *job_ids)
    assert status_of(out.job) == "COMPLETED" or out.job.error_message
    assert status_of(fresh.job) == "COMPLETED"


async def test_instead_of_what_is_exported(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            aimed_at(
                canary,
                """
os.symlink(CANARY, O + "/file")
os.symlink(os.path.dirname(CANARY), O + "/folder")
os.mkfifo(O + "/fifo")
open(O + "/model.bin", "w").write("model")
""",
            ),
            output_config={"register_model": True, "model_name": "links"},
        )
    (told,) = await all_is_well(isolated, job_id)
    assert status_of(told.job) == "COMPLETED"
    assert told.lines("link"), "that links are left out is not told"
    output = isolated.drive / HOSTILE / "jobs" / job_id / "output"
    assert await asyncio.to_thread(_kinds, output) == {"model.bin"}


def _kinds(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)}


async def test_while_the_artefacts_are_exported(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            aimed_at(
                canary,
                """
for number in range(1500):
    open(f"{O}/{number}", "w").write("model")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for each in (0, 1, 2):
            os.close(each)
        import time
        until = time.monotonic() + 20
        os.symlink(CANARY, O + "/link")
        open(O + "/plain", "w").write("model")
        while time.monotonic() < until:
            for made in ("link", "plain"):
                for number in range(1500):
                    try:
                        os.link(f"{O}/{made}", f"{O}/next", follow_symlinks=False)
                        os.rename(f"{O}/next", f"{O}/{number}")
                    except OSError:
                        pass
    os._exit(0)
os.wait()
""",
            )
        )
    (told,) = await all_is_well(isolated, job_id)
    assert status_of(told.job) == "COMPLETED"


async def test_instead_of_the_data_that_other_jobs_fetch(isolated: Machine, canary: Canary) -> None:
    async with isolated.client() as client:
        there = await client.submit(
            aimed_at(
                canary,
                """
os.mkdir(C + "/model")
for folder in (C, C + "/model"):
    os.symlink(CANARY, folder + "/link")
    open(folder + "/plain", "w").write('{"text": "plain"}\\n')
open(C + "/model/weights", "w").write("plain")
open(C + "/data.jsonl", "w").write('{"text": "plain"}\\n')
print("ready", flush=True)
while True:
    for made in ("link", "plain"):
        for folder, name in ((C, "data.jsonl"), (C + "/model", "weights")):
            os.link(f"{folder}/{made}", f"{folder}/next", follow_symlinks=False)
            os.rename(f"{folder}/next", f"{folder}/{name}")
""",
            )
        )
        await client.until_line(there, "ready")
        at = f"scaidrive://{HOSTILE}/jobs/{there}/checkpoints"
        readers = []
        for _ in range(8):
            # A link is refused at the submission, if it is one just then.
            with suppress(grpc.aio.AioRpcError):
                readers.append(
                    await client.submit(
                        FINE,
                        data_config={"sources": [{"path": f"{at}/data.jsonl"}]},
                        training_config={"base_model": {"model_id": f"{at}/model"}},
                    )
                )
        for job_id in readers:
            await client.end(job_id)
        await client.call("CancelJob", CancelJobRequest(job_id=there))
    await all_is_well(isolated, there, *readers)
