"""Every endpoint of a running system does what the document says, as schemathesis sees it."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from tests.api.endpoints import PREFIX
from tests.openapi.conftest import System

#: Method and path.
Route = tuple[str, str]
_WITHOUT_END: Route = ("GET", f"{PREFIX}/events")

#: Cases for each operation, beside those that cover each keyword of its schemas.
_EXAMPLES = 10
_CODES = 20
#: `path` is `uploaded`.
_METADATA = "path dXBsb2FkZWQ="

_CONFIG = """
seed = 1
hooks = "hooks"
max-stream-events = 5
continue-on-failure = true
request-timeout = 180
workers = 1
warnings = false

[headers]
Authorization = "Bearer {key}"

[generation]
deterministic = true
database = "none"
max-examples = {examples}
allow-x00 = false

[phases.stateful]
enabled = false

# Lists name jobs that run, and the streams of those have no end.
[phases.examples.extra-data-sources]
responses = false

[phases.coverage.extra-data-sources]
responses = false

[phases.fuzzing.extra-data-sources]
responses = false

[checks.positive_data_acceptance]
# What fits a schema may still not be possible: a job that is not there, a state that forbids it,
# lists that are together longer than a request line may be.
expected-statuses = [200, 201, 204, 304, 400, 404, 409, 412, 414, 422]

[checks.negative_data_rejection]
# The last ones of what is refused before it is looked at.
expected-statuses = [400, 401, 403, 404, 405, 409, 415, 422, 413, 414, 431]

[dictionaries]
{dictionaries}

[parameters]
"path.job_id" = {{ dictionary = "jobs", probability = 0.7 }}
"path.evaluation_id" = {{ dictionary = "evaluation", probability = 0.7 }}
"path.node_id" = {{ dictionary = "nodes", probability = 0.7 }}
"body.job_id" = {{ dictionary = "completed", probability = 0.7 }}

"body.code" = {{ dictionary = "codes", probability = 0.9 }}

# It has no end, and every case would wait for one: tests/hub and tests/api try its queries.
[[operations]]
include-operation-id = "stream_events"
enabled = false

# A code is good for once, a session until it is ended.
[[operations]]
include-operation-id = "create_console_session"
checks.positive_data_acceptance.expected-statuses = [201, 401]

[[operations]]
include-operation-id = "end_console_session"
headers = {{ Authorization = "Bearer {session}" }}
checks.positive_data_acceptance.expected-statuses = [200, 401]

{own_jobs}

[[operations]]
include-operation-id = "get_file"
[operations.parameters]
"path.path" = {{ dictionary = "files", probability = 0.7 }}

[[operations]]
include-operation-id = "delete_file"
[operations.parameters]
"path.path" = {{ dictionary = "to_be_deleted_files", probability = 0.7 }}

[[operations]]
include-operation-id = "create_upload"
{tus}
"header.Upload-Length" = {{ dictionary = "lengths", probability = 0.9 }}
"header.Upload-Metadata" = {{ dictionary = "metadata", probability = 0.9 }}

[[operations]]
include-operation-id = "get_upload"
{tus}
"path.upload_id" = {{ dictionary = "upload", probability = 0.9 }}

# Each takes its bytes once.
[[operations]]
include-operation-id = "write_upload"
{tus}
{writes}

[[operations]]
include-operation-id = "override_method"
headers = {{ "X-HTTP-Method-Override" = "PATCH" }}
{tus}
{writes}

[[operations]]
include-operation-id = "terminate_upload"
{tus}
"path.upload_id" = {{ dictionary = "to_be_terminated", probability = 0.9 }}
"""

#: What a request of tus 1.0.0 needs, and may be refused for when a part of it is missing.
_TUS = """
checks.positive_data_acceptance.expected-statuses = [200, 201, 204, 400, 404, 409, 412, 415, 460]
checks.negative_data_rejection.expected-statuses = [400, 404, 409, 412, 415, 422, 431, 460]
[operations.parameters]
"header.Tus-Resumable" = {{ dictionary = "tus", probability = 0.9 }}
"""
_WRITES = """
"path.upload_id" = { dictionary = "to_be_written", probability = 0.9 }
"header.Upload-Offset" = { dictionary = "offset", probability = 0.9 }
"""

_HOOKS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""

_OWN_JOB = """
[[operations]]
include-operation-id = "{operation}"
[operations.parameters]
"path.job_id" = {{ dictionary = "{job}", probability = 0.9 }}
"""

#: What can be done with a job once is done with one that nothing else is done with.
_JOB_OF = {
    "cancel_job": "to_be_cancelled",
    "delete_job": "to_be_deleted",
    "pause_job": "to_be_paused",
    "resume_job": "paused",
    "retry_job": "failed",
}
#: What every other operation asks about: a job that runs has streams without an end.
_ENDED = ("completed", "failed")


async def test_every_endpoint_conforms(system: System, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    values = {
        "codes": await _codes(system),
        "to_be_written": await _uploads(system),
        "to_be_terminated": await _uploads(system),
        "upload": (await _uploads(system))[:1],
        "to_be_deleted_files": await _files(system),
    }
    config.write_text(_config(system, values, await _session(system)))
    (tmp_path / "hooks.py").write_text(_HOOKS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{system.url}{PREFIX}/openapi.json"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    # What was only ever refused would have shown nothing of its answers.
    described, succeeded = await _seen(system)
    assert described - succeeded - {_WITHOUT_END} == set()


async def _codes(system: System) -> list[str]:
    """Make more codes than the cases will use; each is good for once, within a minute."""
    return [(await _post(system, "/console-codes"))["code"] for _ in range(_CODES)]


async def _uploads(system: System) -> list[str]:
    """Begin uploads whose length is not known; their ids."""
    headers = {
        "Authorization": f"Bearer {system.key}",
        "Tus-Resumable": "1.0.0",
        "Upload-Defer-Length": "1",
        "Upload-Metadata": _METADATA,
    }
    ids = []
    async with ClientSession(system.url, headers=headers) as web:
        for _ in range(_CODES):
            async with web.post("/v1/drive-uploads/") as response:
                ids.append(response.headers["Location"].rpartition("/")[2])
    return ids


async def _files(system: System) -> list[str]:
    names = [f"file-{number}" for number in range(_CODES)]
    headers = {"Authorization": f"Bearer {system.key}"}
    async with ClientSession(system.url, headers=headers) as web:
        for name in names:
            async with web.put(f"/v1/drive/{name}", data=b"1") as response:
                assert response.status == 201
    return names


async def _session(system: System) -> str:
    code = (await _post(system, "/console-codes"))["code"]
    token: str = (await _post(system, "/console-sessions", {"code": code}))["token"]
    return token


async def _post(system: System, path: str, body: dict[str, str] | None = None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {system.key}"} if body is None else {}
    async with (
        ClientSession(system.url, headers=headers) as web,
        web.post(PREFIX + path, json=body) as response,
    ):
        data: dict[str, str] = (await response.json())["data"]
        return data


def _config(system: System, more: dict[str, list[str]], session: str) -> str:
    ids = asdict(system.ids)
    jobs = [ids[name] for name in _ENDED]
    values = {name: [value] for name, value in ids.items()} | {
        "jobs": jobs,
        "nodes": ["local"],
        "files": ["corpus.jsonl", "train.py", "jobs"],
        "tus": ["1.0.0"],
        "lengths": ["5"],
        "offset": ["0"],
        "metadata": [_METADATA],
        **more,
    }
    return _CONFIG.format(
        key=system.key,
        session=session,
        examples=_EXAMPLES,
        tus=_TUS.format(),
        writes=_WRITES,
        dictionaries="\n".join(
            f"{name} = {{ values = {json.dumps(each)} }}" for name, each in values.items()
        ),
        own_jobs="".join(_OWN_JOB.format(operation=name, job=job) for name, job in _JOB_OF.items()),
    )


async def _seen(system: System) -> tuple[set[Route], set[Route]]:
    """Tell which operations are described, and which of them the gateway counted a success of."""
    async with ClientSession(system.url) as web:
        async with web.get(f"{PREFIX}/openapi.json") as response:
            paths = (await response.json())["paths"]
        async with web.get("/metrics") as response:
            counted = text_string_to_metric_families(await response.text())
    [requests] = [family for family in counted if family.name == "scaimind_requests"]
    return (
        {(method.upper(), path) for path, methods in paths.items() for method in methods},
        {
            (sample.labels["method"], sample.labels["route"])
            for sample in requests.samples
            if sample.labels["status"].startswith("2")
        },
    )
