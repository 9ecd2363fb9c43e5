"""Two coordinators on one machine, with the same range of user ids for jobs."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.coordinator.isolation.levels import UidRange
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import client_of, coordinator_process, status_of
from tests.hostile.places import PASSABLE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs user ids")

#: It is never seen standing still: each of its processes lives for a moment.
RESTLESS = """
    import os, time
    go = os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/go"
    if os.fork():
        print("uid", os.getuid(), flush=True)
        while not os.path.exists(go):
            time.sleep(0.05)
        raise SystemExit
    while not os.path.exists(go):
        if os.fork():
            os._exit(0)
        time.sleep(0.002)
"""


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that every user may pass, as users of jobs have to."""
    path = Path(tempfile.mkdtemp(prefix="scaimind-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


#: User ids that no other test uses, for each level: both may be tested at the same time.
IDS = {"namespaces": UidRange(61720, 61723), "user": UidRange(61724, 61727)}


@pytest.mark.parametrize("level", IDS)
async def test_neither_ends_jobs_of_the_other(
    passable: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = PASSABLE if level == "user" else ()
    monkeypatch.setenv("SCAIMIND_COORDINATOR_ISOLATION", level)
    ids = IDS[level]
    async with (
        coordinator_process(passable / "a", uids=ids, within=within) as first,
        client_of(first.port, passable / "a" / "drive") as one,
    ):
        async with (
            coordinator_process(passable / "b", uids=ids, within=within) as second,
            client_of(second.port, passable / "b" / "drive") as other,
        ):
            clients = (one, other, one, other)
            jobs = await asyncio.gather(*(client.submit(RESTLESS) for client in clients))
            started = zip(clients, jobs, strict=True)
            lines = [await client.until_line(job, "uid") for client, job in started]
            assert len({line.message for line in lines}) == 4
            run = await asyncio.to_thread(
                read_json, JobDir(passable / "a" / "jobs" / jobs[0]).run(1).spec
            )
            assert run is not None
            assert run["isolation"]["level"] == level
            # No id is left: it waits, and nobody else's is taken for it.
            waits = await other.submit("pass")
            await other.call("CancelJob", CancelJobRequest(job_id=jobs[1]))
            assert status_of(await other.end(waits)) == "COMPLETED"
            assert status_of(await other.job(jobs[3])) == "TRAINING"
        # With the other coordinator its jobs left. Those of this one go on.
        for job in (jobs[0], jobs[2]):
            go = passable / "a" / "drive" / "local" / "jobs" / job / "checkpoints" / "go"
            await asyncio.to_thread(go.touch)
            ended = await one.end(job)
            assert status_of(ended) == "COMPLETED", ended.error_message
