"""Credentials among a job's variables reach its process, and nobody else."""

import hashlib
import stat
from pathlib import Path

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    Job,
    ListJobsRequest,
    RetryJobRequest,
)
from tests.coordinator.harness import Client, running, status_of, submission
from tests.coordinator.scripts import WAITS
from tests.secrecy import secret

TOKEN = secret("hf_the-token-of-the-tests-of-secrets")
URL = "db://me:" + secret("the-password-in-the-url-of-the-tests") + "@host/x"
GIVEN = {"environment": {"HF_TOKEN": TOKEN, "DATABASE_URL": URL, "EPOCHS": "3"}}
SHOWN = {"HF_TOKEN": "***", "DATABASE_URL": "***", "EPOCHS": "3"}
#: Proves that it was given them.
PROVES = """
    import hashlib, os
    for name in ("HF_TOKEN", "DATABASE_URL", "EPOCHS"):
        print(name, hashlib.sha256(os.environ[name].encode()).hexdigest())
"""
FAILS = PROVES + "    raise SystemExit('no: ' + os.environ['HF_TOKEN'])\n"
PROOF = [
    f"{name} {hashlib.sha256(value.encode()).hexdigest()}"
    for name, value in GIVEN["environment"].items()
]


def _kept(path: Path) -> list[str]:
    folder = path / "secrets"
    return sorted(entry.stem for entry in folder.iterdir()) if folder.exists() else []


def _found(path: Path) -> list[Path]:
    """The files below `path` in which a secret stands."""
    return [
        file
        for file in path.rglob("*")
        if file.is_file()
        and any(part in file.read_bytes() for part in (TOKEN.encode(), URL.encode()))
    ]


async def _proof(client: Client, job_id: str) -> list[str]:
    lines = [entry.message for entry in await client.log(job_id)]
    return [line for line in lines if line.split(" ")[0] in SHOWN]


def _environment(job: Job) -> dict[str, str]:
    return dict(job.training_config.environment)


async def test_a_secret_reaches_the_process_and_stands_nowhere_else(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(PROVES + WAITS, training_config=GIVEN)
        await client.until_line(job_id, "ready")
        assert _found(tmp_path) == [tmp_path / "secrets" / f"{job_id}.json"]
        (file,) = _found(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert _environment(await client.job(job_id)) == SHOWN
        (listed,) = (await client.call("ListJobs", ListJobsRequest())).jobs
        assert _environment(listed) == SHOWN
        answer = await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert _environment(answer) == SHOWN
        await client.end(job_id)
        assert await _proof(client, job_id) == PROOF
        assert _kept(tmp_path) == []
        assert _found(tmp_path) == []


async def test_the_config_that_a_script_reads_has_them_masked(tmp_path: Path) -> None:
    """Scripts write it beside their models."""
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            """
            import json, os
            config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
            print(sorted(config["training_config"]["environment"].items()))
            """,
            training_config=GIVEN,
        )
        job = await client.end(job_id)
        assert status_of(job) == "COMPLETED", job
        lines = [entry.message for entry in await client.log(job_id)]
        assert str(sorted(SHOWN.items())) in lines
        assert _kept(tmp_path) == []


async def test_what_a_script_says_of_them_is_masked(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            """
            import json, os, sys
            print("I was given", os.environ["HF_TOKEN"])
            print(json.dumps({"level": "info", "message": "x", "url": os.environ["DATABASE_URL"]}))
            sys.exit("the last word is " + os.environ["HF_TOKEN"])
            """,
            training_config=GIVEN,
        )
        job = await client.end(job_id)
        assert job.error_message.endswith("the last word is ***")
        log = await client.log(job_id)
        assert "I was given ***" in [entry.message for entry in log]
        assert [entry.fields["url"] for entry in log if "url" in entry.fields] == ["***"]


async def test_a_retry_takes_them_along(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(FAILS, training_config=GIVEN)
        assert status_of(await client.end(job_id)) == "FAILED"
        assert _kept(tmp_path) == [job_id]
        child = await client.call("RetryJob", RetryJobRequest(job_id=job_id))
        assert _environment(child) == SHOWN
        await client.end(child.job_id)
        assert await _proof(client, child.job_id) == PROOF
        assert _kept(tmp_path) == sorted([job_id, child.job_id])


async def test_a_retry_of_what_is_not_kept_any_more_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(FAILS, training_config=GIVEN)
        await client.end(job_id)
        (tmp_path / "secrets" / f"{job_id}.json").unlink()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.call("RetryJob", RetryJobRequest(job_id=job_id))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "DATABASE_URL, HF_TOKEN" in str(refused.value.details())


async def test_they_outlive_a_restart_and_what_is_nobodys_is_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(PROVES + WAITS, training_config=GIVEN)
        await client.until_line(job_id, "ready")
    assert _kept(tmp_path) == [job_id]
    (tmp_path / "secrets" / "job-of-a-crash.json").write_text("{}")
    (tmp_path / "secrets" / ".half-written").write_text("{}")
    async with running(tmp_path) as (_, client):
        await client.until(job_id, lambda job: job.run_count == 2)
        await client.until_line(job_id, "Run 2")
        assert _kept(tmp_path) == [job_id]
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        assert _kept(tmp_path) == []


@pytest.mark.parametrize("name", ["HF_TOKEN", "DATABASE_URL", "EPOCHS"])
async def test_what_only_stands_for_a_secret_is_refused_by_name(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.submit("", training_config={"environment": {name: "***"}})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"'{name}'" in str(refused.value.details())


async def test_an_idempotency_key_tells_two_secrets_apart(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "")
        request = submission(training_config=GIVEN, idempotency_key="once")
        job_id = (await client.call("SubmitJob", request)).job_id
        assert (await client.call("SubmitJob", request)).job_id == job_id
        await client.end(job_id)
        assert (await client.call("SubmitJob", request)).job_id == job_id
        request.training_config.environment["HF_TOKEN"] = "another"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.call("SubmitJob", request)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
