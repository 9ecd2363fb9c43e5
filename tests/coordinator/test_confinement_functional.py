"""What a training process can reach: its own job, and nothing of anybody else."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from app.coordinator.engines.local import opening
from app.coordinator.isolation import probe
from app.coordinator.isolation import system_paths as confinement
from app.coordinator.isolation.system_paths import (
    landlock_version,
    missing_protection,
    system_paths,
)
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import (
    SECRET,
    Client,
    client_of,
    coordinator_process,
    running,
    status_of,
)
from tests.coordinator.scripts import WAITS

needs_landlock = pytest.mark.skipif(
    landlock_version() == 0, reason="this kernel has no Landlock: nothing could be kept apart"
)

#: Tries what is in TARGETS, and says for each what came of it.
TRIES = """
    import json, os, subprocess
    from pathlib import Path

    def link(path):
        os.symlink(path, "a-link")
        try:
            return Path("a-link").read_bytes()
        finally:
            os.unlink("a-link")

    def through_a_child(path):
        done = subprocess.run(["cat", path], capture_output=True)
        if done.returncode:
            raise PermissionError(1, done.stderr.decode())
        return done.stdout

    ways = {
        "read": lambda path: Path(path).read_bytes(),
        "list": os.listdir,
        "follow": os.readlink,
        "write": lambda path: open(path, "ab").close(),
        "empty": lambda path: os.truncate(path, 0),
        "create": lambda path: open(path, "xb").close(),
        "remove": os.unlink,
        "hard link": lambda path: os.link(path, "taken"),
        "move": lambda path: os.rename(path, "moved"),
        "soft link": link,
        "child": through_a_child,
        "signal": lambda pid: os.kill(int(pid), 0),
    }
    found = {}
    for way, target in json.loads(os.environ["TARGETS"]):
        try:
            ways[way](target)
        except OSError as error:
            found[f"{way} {target}"] = error.strerror
        else:
            found[f"{way} {target}"] = "done"
    print("found", json.dumps(found))
"""

#: What a training process may well do.
WORKS = """
    import ctypes, json, multiprocessing, os, socket, subprocess, sys, tempfile, threading
    from pathlib import Path

    def square(n):
        return n * n

    if __name__ == "__main__":
        import numpy
        config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
        assert Path(config["data_config"]["sources"][0]["local_path"]).read_text() == "mine"
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(square, [4]) == [16]
        from multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(create=True, size=100)
        memory.close()
        memory.unlink()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "x").write_text("x")
        part = Path(os.environ["SCAIMIND_CHECKPOINT_DIR"], "step-1.tmp")
        part.mkdir()
        Path(part, "weights").write_text("x")
        part.rename(part.with_suffix(""))
        Path(os.environ["SCAIMIND_OUTPUT_DIR"], "model").write_text("x")
        open(os.environ["SCAIMIND_METRICS_FILE"], "a").write('{"step": 1}\\n')
        assert subprocess.run(["sh", "-c", "true"]).returncode == 0
        socket.getaddrinfo("localhost", 80)
        open("/dev/null", "w").write("x")
        Path("/proc/self/environ").read_bytes()
        Path("/proc/meminfo").read_bytes()
        print("all worked")
"""


async def tried(client: Client, targets: list[tuple[str, str]]) -> dict[str, str]:
    """What came of each way to each target, from a training process of this client's tenant."""
    job_id = await client.submit(
        TRIES, training_config={"environment": {"TARGETS": json.dumps(targets)}}
    )
    entry = await client.until_line(job_id, "found ")
    assert status_of(await client.end(job_id)) == "COMPLETED"
    answer: dict[str, str] = json.loads(entry.message.removeprefix("found "))
    assert len(answer) == len(targets)
    return answer


@needs_landlock
async def test_a_script_reaches_nothing_of_the_coordinator_or_of_another_tenant(
    tmp_path: Path,
) -> None:
    drive = tmp_path / "drive"
    async with (
        coordinator_process(tmp_path) as process,
        client_of(process.port, drive) as client,
        client_of(process.port, drive, tenant="other") as other,
    ):
        environ = psutil.Process(process.process.pid).environ()
        assert SECRET in environ.values(), "there is something to find"
        other.write("secret.jsonl", "theirs")
        job_id = await other.submit(WAITS, training_config={"environment": {"KEY": "theirs"}})
        await other.until_line(job_id, "ready")
        theirs = JobDir(tmp_path / "jobs" / job_id)
        who: Any = read_json(theirs.run(1).runner)
        pids = [process.process.pid, who["pid"], *who["process_groups"], os.getpid()]
        secret = str(drive / "other/secret.jsonl")
        database = str(tmp_path / "coordinator.db")
        targets = [
            *((way, f"/proc/{pid}/environ") for pid in pids for way in ("read", "child")),
            *(("read", f"/proc/{pid}/mem") for pid in pids),
            *(("follow", f"/proc/{pid}/{name}") for pid in pids for name in ("cwd", "fd/0")),
            *((way, secret) for way in ("read", "soft link", "hard link", "child", "write")),
            *((way, secret) for way in ("empty", "move", "remove")),
            *((way, database) for way in ("read", "hard link", "write", "empty", "move")),
            ("read", f"{database}-wal"),
            ("list", str(tmp_path)),
            ("list", str(drive)),
            ("list", str(drive / "other")),
            ("list", str(tmp_path / "jobs")),
            ("list", str(theirs.path)),
            ("read", str(theirs.log / "entries")),
            ("read", str(theirs.config)),
            ("write", str(theirs.run(1).metrics_file)),
            ("create", str(theirs.work / "planted.py")),
            ("create", str(drive / "local/planted.py")),
            ("create", str(theirs.run(1).exit)),
            ("list", "/root"),
            ("list", "/dev/shm"),
            ("read", "/etc/shadow"),
            ("write", "/proc/sys/kernel/core_pattern"),
        ]
        found = await tried(client, targets)
        assert {way: answer for way, answer in found.items() if answer == "done"} == {}
        assert (drive / "other/secret.jsonl").read_text() == "theirs"
        await other.call("CancelJob", CancelJobRequest(job_id=job_id))
        await other.end(job_id)
        await process.stop(signal.SIGTERM)


@pytest.mark.skipif(landlock_version() < 6, reason="this kernel's Landlock knows no signals")
async def test_a_script_cannot_signal_what_is_not_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        found = await tried(client, [("signal", str(os.getpid())), ("signal", "1")])
        # In namespaces others are not even there.
        assert set(found.values()) <= {"Operation not permitted", "No such process"}


async def test_a_script_has_no_capabilities_and_gains_none(tmp_path: Path) -> None:
    script = """
        for line in open("/proc/self/status"):
            if line.startswith(("CapPrm", "CapEff", "CapAmb", "NoNewPrivs")):
                print(*line.split())
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script)
        said = dict(
            entry.message.split(":")
            for entry in await client.log(job_id)
            if entry.source == "stdout"
        )
        assert said.pop("NoNewPrivs").strip() == "1"
        assert {name: int(value, 16) for name, value in said.items()} == {
            "CapPrm": 0,
            "CapEff": 0,
            "CapAmb": 0,
        }


async def test_what_training_needs_is_left(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        data = client.write("data.jsonl", "mine")
        job_id = await client.submit(WORKS, data_config={"sources": [{"path": data}]})
        job = await client.end(job_id)
        assert (status_of(job), job.error_message) == ("COMPLETED", "")
        assert [checkpoint.checkpoint_id for checkpoint in job.checkpoints] == ["step-1"]
        assert (client.drive / f"local/jobs/{job_id}/output/model").exists()


async def test_the_list_of_processes_names_no_job_and_no_tenant(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        other = Client(client.stub, client.drive, tenant="other-tenant")
        (client.drive / "other-tenant").mkdir()
        job_id = await other.submit(WAITS)
        await other.until_line(job_id, "ready")
        family = psutil.Process().children(recursive=True)
        assert len(family) >= 2
        told = []
        for member in family:
            # One may have ended meanwhile.
            with suppress(psutil.NoSuchProcess):
                told.append((member.name(), member.cmdline()))
        said = json.dumps(told)
        assert job_id not in said
        assert "other-tenant" not in said
        await other.call("CancelJob", CancelJobRequest(job_id=job_id))
        await other.end(job_id)


async def test_a_kernel_that_cannot_do_it_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "landlock_version", lambda: 0)
    monkeypatch.setattr(opening, "landlock_version", lambda: 0)
    with capture_logs() as logs:
        async with running(tmp_path, isolation="none") as (_, client):
            job_id = await client.submit("print('runs')")
            assert status_of(await client.end(job_id)) == "COMPLETED"
    (warning,) = [entry for entry in logs if entry["event"] == "jobs_not_confined"]
    assert "other tenants" in warning["reason"]


def test_what_older_kernels_leave_open() -> None:
    assert "no Landlock" in missing_protection(0)
    assert "6.2" in missing_protection(2)
    assert "6.12" in missing_protection(5)
    assert missing_protection(6) == ""


def test_a_private_directory_within_the_system_stays_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "opt/scaimind"
    private = ours / "var/coordinator"
    for folder in (private, ours / "var/postgres", ours / "venv/lib", tmp_path / "opt/cuda"):
        folder.mkdir(parents=True)
    (tmp_path / "way-around").symlink_to(private)
    roots = (str(tmp_path / "opt"), str(tmp_path / "way-around"))
    monkeypatch.setattr(confinement, "SYSTEM", roots)
    for prefix, expected in (
        (ours / "venv", ["opt/cuda", "opt/scaimind/venv"]),
        # A virtual environment around everything.
        (ours, ["opt/cuda", "opt/scaimind/venv"]),
    ):
        for name in ("prefix", "exec_prefix"):
            monkeypatch.setattr(sys, name, str(prefix))
        paths = [path for path in system_paths([private]) if path.startswith(str(tmp_path))]
        assert sorted(paths) == [str(tmp_path / path) for path in expected]
