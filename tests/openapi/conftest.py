"""A whole system for schemathesis: the gateway and the coordinator as processes, PostgreSQL."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from app.scaikey.api_keys import create_key
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import PauseJobRequest
from tests.coordinator.harness import SECRET, Client, client_of, coordinator_process

TENANT = "local"

#: Logs, reports metrics, keeps a checkpoint and leaves a model that can be evaluated.
_SCRIPT = """
import json, os
print("the first line")
for step in range(1, 4):
    print(json.dumps({"level": "WARNING", "message": "a structured line", "step": step}))
model = '''
class Model:
    def score(self, prompt, continuation):
        return -1.0 * len(continuation), len(continuation)

    def generate(self, prompt, max_tokens):
        return "b" * max_tokens

def load(directory):
    return Model()
'''
with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/scaimind_model.py", "w") as file:
    file.write(model)
"""


@dataclass(frozen=True, slots=True)
class Ids:
    """Jobs, one for each thing that can be done with one, and an evaluation."""

    completed: str
    failed: str
    to_be_deleted: str
    to_be_paused: str
    to_be_cancelled: str
    paused: str
    evaluation: str


@dataclass(frozen=True, slots=True)
class System:
    """A gateway that runs, and what is there behind it."""

    url: str
    #: May do everything.
    key: str
    ids: Ids


@pytest.fixture
async def system(
    tmp_path: Path, new_database: Callable[[str], str], migrated_template: str
) -> AsyncIterator[System]:
    dsn = new_database(migrated_template)
    key = create_key(dsn, tenant_id=TENANT, user_id="ann", roles=["tenant_admin"]).secret
    async with coordinator_process(tmp_path) as coordinator:
        async with client_of(coordinator.port, tmp_path / "drive", TENANT) as client:
            ids = await _fill(client)
        async with _gateway(coordinator.port, dsn, tmp_path / "drive") as url:
            yield System(url, key, ids)


async def _fill(client: Client) -> Ids:
    # What the examples of the document name.
    client.write("train.py", "pass")
    corpus = client.write("corpus.jsonl", '{"text": "ab"}\n{"text": "bb"}\n')
    completed = await client.submit(_SCRIPT)
    await client.end(completed)
    failed = await client.submit("raise SystemExit(1)")
    await client.end(failed)
    to_be_deleted = await client.submit("pass")
    await client.end(to_be_deleted)
    evaluation = await client.call(
        "SubmitEvaluation",
        SubmitEvaluationRequest(
            job_id=completed, benchmarks=[Benchmark(name="perplexity", dataset=corpus)]
        ),
    )
    await client.end(evaluation.evaluation_id)
    paused = await _start(client)
    await client.call("PauseJob", PauseJobRequest(job_id=paused))
    await client.until_status(paused, "PAUSED")
    return Ids(
        completed=completed,
        failed=failed,
        to_be_deleted=to_be_deleted,
        to_be_paused=await _start(client),
        to_be_cancelled=await _start(client),
        paused=paused,
        evaluation=evaluation.evaluation_id,
    )


async def _start(client: Client) -> str:
    job_id = await client.submit("import time; print('on', flush=True); time.sleep(600)")
    await client.until_line(job_id, "on")
    return job_id


@asynccontextmanager
async def _gateway(coordinator_port: int, dsn: str, drive: Path) -> AsyncIterator[str]:
    """Run a gateway in a process of its own; its address, once it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "serve"),
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "SCAIMIND_PORT": "0",
            "SCAIMIND_DATABASE_DSN": dsn,
            "SCAIMIND_DATABASE_CONNECT_TIMEOUT": "60",
            "SCAIMIND_DATABASE_STATEMENT_TIMEOUT": "60",
            "SCAIMIND_UPSTREAM_UNARY_TIMEOUT": "60",
            "SCAIMIND_UPSTREAM_ADDRESS": f"127.0.0.1:{coordinator_port}",
            "SCAIMIND_UPSTREAM_API_SECRET": SECRET,
            "SCAIMIND_LIMITS_RATE": "0",
            # As many sources as a check may have take long on a machine that has much to do.
            "SCAIMIND_UPSTREAM_SUBMIT_TIMEOUT": "150",
            "SCAIMIND_DRIVE_DIR": str(drive),
        },
    )
    assert process.stdout is not None
    url = ""
    try:
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                told = orjson.loads(line)
                url = told.get("url", url)
                if told["event"] == "gateway_ready_to_serve":
                    break
        assert url, "the gateway did not start"
        # What it logs from here on must not fill the pipe.
        drained = asyncio.create_task(process.stdout.read())
        try:
            yield url
        finally:
            process.terminate()
            async with asyncio.timeout(60):
                await process.wait()
                log = await drained
        assert process.returncode == 0
        assert b"request_failed" not in log, log.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # Closed here and now: a warning at collection time would come too late.
        process._transport.close()  # type: ignore[attr-defined]  # no public way
