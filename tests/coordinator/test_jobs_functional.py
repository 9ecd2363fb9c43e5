"""Jobs from submission to end, with real processes, over a real socket."""

import asyncio
import errno
import hmac
import json
import os
import secrets
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import grpc
import grpc.aio
import psutil
import pytest

from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.sqlite_store import SqliteStore
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, JobStatus, ListJobsRequest
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    ListJobLogsRequest,
    LogLevel,
)
from tests.coordinator.harness import SECRET, Client, config_for, running, status_of, submission


def lives(mark: str) -> bool:
    """Whether a process has this argument; its number is another one in its namespace."""
    return any(
        mark in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )


TRAINS = """
    import json, os
    config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
    data = open(config["data_config"]["sources"][0]["local_path"]).read()
    print("read", len(data), "characters")
    with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as metrics:
        for step in range(1, 11):
            print(f"step {step}")
            metrics.write(json.dumps({"step": step, "loss": 1 / step, "lr": 0.1, "my": 2}) + "\\n")
            metrics.flush()
    with open(os.path.join(os.environ["SCAIMIND_OUTPUT_DIR"], "model.txt"), "w") as file:
        file.write("weights")
"""


async def test_a_job_runs_and_leaves_its_artefacts(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        data = client.write("data.jsonl", '{"text": "hello"}\n')
        job_id = await client.submit(
            TRAINS,
            data_config={"sources": [{"path": data}]},
            output_config={"path": "scaidrive://local/models/first"},
        )
        entries = await client.log(job_id)
        assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
        lines = [entry.message for entry in entries if entry.source == "stdout"]
        assert lines == ["read 18 characters", *(f"step {n}" for n in range(1, 11))]
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job
        assert job.output_path == "scaidrive://local/models/first"
        assert (client.drive / "local/models/first/model.txt").read_text() == "weights"
        assert job.progress.step == 10
        assert job.progress.loss == pytest.approx(0.1)
        assert job.exit_code == 0
        assert job.run_count == 1
        assert job.node_ids == ["local"]
        answer = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=job_id))
        assert [point.step for point in answer.points] == list(range(1, 11))
        assert [point.sequence for point in answer.points] == list(range(1, 11))
        assert answer.points[0].learning_rate == 0.1
        assert answer.points[0].extra == {"my": 2.0}


async def test_a_failing_script_fails_its_job_with_its_last_words(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("raise ValueError('no such luck')")
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert job.exit_code == 1
        assert "status 1" in job.error_message
        assert "no such luck" in job.error_message


async def test_levels_and_sources(tmp_path: Path) -> None:
    script = """
        import sys
        print("plain")
        print("ERROR: bad")
        print('{"level": "debug", "message": "inner", "rank": 3, "x": 1.5}')
        sys.stdout.flush()
        print("aside", file=sys.stderr)
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script)
        entries = {entry.message: entry for entry in await client.log(job_id)}
        assert entries["plain"].level == LogLevel.LOG_LEVEL_INFO
        assert entries["ERROR: bad"].level == LogLevel.LOG_LEVEL_ERROR
        assert entries["inner"].level == LogLevel.LOG_LEVEL_DEBUG
        assert entries["inner"].rank == 3
        assert entries["inner"].fields == {"x": "1.5"}
        assert entries["aside"].level == LogLevel.LOG_LEVEL_WARNING
        assert entries["aside"].source == "stderr"
        assert entries["aside"].node_id == "local"


async def test_a_process_is_given_its_own_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCAIMIND_COORDINATOR_API_SECRET", "never-to-be-seen")
    monkeypatch.setenv("SOMETHING_ELSE", "never-to-be-seen")
    script = """
        import json, os
        print(json.dumps(dict(os.environ)))
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            script, training_config={"environment": {"MINE": "yes", "LANG": "C"}}
        )
        (said,) = [e.message for e in await client.log(job_id) if e.source == "stdout"]
        environment = json.loads(said)
        assert environment.pop("MINE") == "yes"
        assert environment.pop("SCAIMIND_JOB_ID") == job_id
        for name in list(environment):
            if name.startswith("SCAIMIND_"):
                del environment[name]
        assert set(environment) <= {
            "PATH",
            "HOME",
            "LANG",
            "LC_CTYPE",
            "PYTHONUNBUFFERED",
            "CUDA_VISIBLE_DEVICES",
            "CUDA_DEVICE_ORDER",
            "TMPDIR",
        }
        assert "never-to-be-seen" not in said


async def test_cancel_a_running_job_twice(tmp_path: Path) -> None:
    script = """
        import signal, sys, time
        def leave(*_):
            print("leaving"); sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print("ready")
        while True:
            time.sleep(60)
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script)
        await client.until_line(job_id, "ready")
        request = CancelJobRequest(job_id=job_id, reason="changed my mind")
        await client.call("CancelJob", request)
        await client.call("CancelJob", request)
        assert "leaving" in [entry.message for entry in await client.log(job_id)]
        job = await client.job(job_id)
        assert status_of(job) == "CANCELLED"
        assert "changed my mind" in job.message
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("CancelJob", request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "CANCELLED" in str(caught.value.details())


async def test_a_process_that_does_not_leave_is_killed_with_all_it_started(
    tmp_path: Path,
) -> None:
    script = """
        import signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import time; print('child', flush=True); time.sleep(600)"
        subprocess.run([sys.executable, "-c", code, MARK])
    """
    mark = f"mark-{secrets.token_hex(8)}"
    async with running(tmp_path, stop_grace=0.3) as (_, client):
        job_id = await client.submit(script.replace("MARK", repr(mark)))
        await client.until_line(job_id, "child")
        assert lives(mark)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "CANCELLED"
        assert not lives(mark)


async def test_jobs_are_listed_in_pages(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        ids = [
            await client.submit("pass", name=f"job {n}", labels={"n": str(n % 2)}) for n in range(5)
        ]
        for job_id in ids:
            await client.end(job_id)
        seen: list[str] = []
        token = ""
        while True:
            answer = await client.call("ListJobs", ListJobsRequest(page_size=2, page_token=token))
            assert answer.total_count == 5
            seen += [job.job_id for job in answer.jobs]
            token = answer.next_page_token
            if not token:
                break
        assert seen == ids[::-1]
        odd = await client.call("ListJobs", ListJobsRequest(label_filter={"n": "1"}))
        assert [job.name for job in odd.jobs] == ["job 3", "job 1"]
        by_name = await client.call("ListJobs", ListJobsRequest(order_by="name", page_size=1))
        assert by_name.jobs[0].name == "job 0"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ListJobs", ListJobsRequest(page_token=by_name.next_page_token))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        done = await client.call(
            "ListJobs", ListJobsRequest(statuses=[JobStatus.JOB_STATUS_COMPLETED])
        )
        assert done.total_count == 5
        none = await client.call(
            "ListJobs", ListJobsRequest(statuses=[JobStatus.JOB_STATUS_TRAINING])
        )
        assert none.total_count == 0


async def test_another_tenants_job_is_not_there(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("pass")
        other = Client(client.stub, client.drive, tenant="other")
        answers = set()
        for asked in (job_id, "job-that-never-was"):
            for method, request in (
                ("GetJob", CancelJobRequest(job_id=asked)),
                ("CancelJob", CancelJobRequest(job_id=asked)),
                ("ListJobLogs", ListJobLogsRequest(job_id=asked)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await other.call(method, request)
                answers.add((caught.value.code(), caught.value.details()))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with asyncio.timeout(60):
                    await anext(other.watch(asked))
            answers.add((caught.value.code(), caught.value.details()))
        assert answers == {(grpc.StatusCode.NOT_FOUND, "the job does not exist")}
        listed = await other.call("ListJobs", ListJobsRequest())
        assert (listed.total_count, list(listed.jobs)) == (0, [])
        await client.end(job_id)


async def test_a_wrong_secret_is_turned_away(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        stranger = Client(client.stub, client.drive, secret="wrong")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.call("ListJobs", ListJobsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(60):
                await anext(stranger.watch("job-x"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        nobody = Client(client.stub, client.drive, tenant="../etc")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await nobody.call("ListJobs", ListJobsRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_secret_is_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(given: bytes, secret: bytes) -> bool:
        compared.append(given)
        return hmac.compare_digest(given, secret)

    monkeypatch.setattr(
        "app.coordinator.service.interceptor.hmac", SimpleNamespace(compare_digest=compare)
    )
    async with running(tmp_path) as (_, client):
        for wrong in (SECRET[:-1], SECRET + "x", SECRET.upper(), "x"):
            stranger = Client(client.stub, client.drive, secret=wrong)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stranger.call("ListJobs", ListJobsRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert compared.pop() == wrong.encode()
        await client.call("ListJobs", ListJobsRequest())
        assert compared == [SECRET.encode()]


async def test_an_idempotency_key_gives_the_same_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        request = submission(idempotency_key="once")
        first = await client.call("SubmitJob", request)
        again = await client.call("SubmitJob", request)
        assert first.job_id == again.job_id
        request.name = "another"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", request)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        await client.end(first.job_id)


async def test_paths_that_lead_out_of_the_tenants_folder(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        (client.drive / "other").mkdir()
        (client.drive / "other/secret.jsonl").write_text("{}")
        os.symlink(client.drive / "other/secret.jsonl", client.drive / "local/link.jsonl")
        os.symlink("loop", client.drive / "local/loop")
        for path, code in (
            ("scaidrive://other/secret.jsonl", grpc.StatusCode.INVALID_ARGUMENT),
            ("scaidrive://local/../other/secret.jsonl", grpc.StatusCode.INVALID_ARGUMENT),
            ("/etc/passwd", grpc.StatusCode.INVALID_ARGUMENT),
            ("scaidrive://local/link.jsonl", grpc.StatusCode.FAILED_PRECONDITION),
            ("scaidrive://local/loop", grpc.StatusCode.FAILED_PRECONDITION),
            ("scaidrive://local/not-there", grpc.StatusCode.FAILED_PRECONDITION),
            ("scaidrive://local/" + "x" * 300, grpc.StatusCode.FAILED_PRECONDITION),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call(
                    "SubmitJob", submission(data_config={"sources": [{"path": path}]})
                )
            assert caught.value.code() is code, path
            details = str(caught.value.details())
            assert "data_config.sources.0.path" in details
            assert str(tmp_path) not in details


async def test_an_unfinished_line_is_told_and_a_traceback_can_be_folded(tmp_path: Path) -> None:
    script = """
        import sys
        print("Loading", end="", flush=True)
        import os, time
        while not os.path.exists(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/go"):
            time.sleep(0.01)
        print(" done")
        raise ValueError("bad")
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script)
        # Before its line is finished.
        first = await client.until_line(job_id, "Loading")
        assert dict(first.fields) == {"partial": "true"}
        folder = tmp_path / "drive" / "local" / "jobs" / job_id / "checkpoints"
        await asyncio.to_thread((folder / "go").touch)
        log = await client.log(job_id)
        (rest,) = (entry for entry in log if "continues" in entry.fields)
        assert rest.fields["continues"] == str(first.offset)
        assert first.message + rest.message == "Loading done"
        block = [entry for entry in log if "block" in entry.fields]
        assert block[0].message == "Traceback (most recent call last):"
        assert block[-1].message == "ValueError: bad"
        assert {entry.fields["block"] for entry in block} == {str(block[0].offset)}
        assert {entry.level for entry in block} == {LogLevel.LOG_LEVEL_ERROR}


@pytest.mark.parametrize("place", [(SqliteStore, "save_jobs"), (JobSecrets, "keep")])
async def test_nothing_is_left_of_a_job_that_could_not_be_taken_up(
    place: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        if place[0] is SqliteStore:
            raise sqlite3.OperationalError("database or disk is full")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with running(tmp_path) as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(*place, full)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.submit("pass", training_config={"environment": {"HF_TOKEN": "hf_x"}})
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        data_dir = config_for(tmp_path).data_dir
        assert [entry for name in ("jobs", "secrets") for entry in data_dir.glob(f"{name}/*")] == []
        assert status_of(await client.end(await client.submit("pass"))) == "COMPLETED"
