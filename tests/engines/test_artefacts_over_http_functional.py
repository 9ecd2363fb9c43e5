"""A job's files in S3, in and out through the gateway: what goes in is uploaded, and what a job
leaves there is downloaded, as the client and the console do it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("s3fs")

from scaimind import AsyncClient

from app.drive.settings import DriveSettings
from generated.mindcoordinator.v1.jobs_pb2 import DataSource
from tests.coordinator.harness import SECRET, config_for, status_of, submission
from tests.drive.asking import DriveClient
from tests.engines.direct import cluster, coordinator_of
from tests.engines.test_no_shared_disk_functional import FAST, PREFIX, bucket, store, submit
from tests.objects.buckets import BUCKET, Bucket
from tests.replicas import new_key, replica, settings_for

if TYPE_CHECKING:
    from app.objects.s3 import S3Store

__all__ = ["bucket", "store"]

SCRIPT = """
import json, os, pathlib
config = json.loads(pathlib.Path(os.environ["SCAIMIND_JOB_CONFIG"]).read_text())
data = pathlib.Path(config["data_config"]["sources"][0]["local_path"]).read_bytes()
pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"], "step-1.pt").write_bytes(b"checkpoint")
output = pathlib.Path(os.environ["SCAIMIND_OUTPUT_DIR"], "deep")
output.mkdir()
(output / "model.bin").write_bytes(data[::-1])
"""


async def test_a_job_s_artefact_is_downloaded_through_the_gateway(
    bucket: Bucket,
    store: "S3Store",
    migrated_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: dict[str, Any] = {
        "url": f"s3://{BUCKET}/{PREFIX}",
        "endpoint": f"http://127.0.0.1:{bucket.port}",
        "credentials_file": bucket.credentials,
    }
    drive = {f"drive_{name}": value for name, value in there.items()}
    drive |= {"engine": "ray", **FAST}
    (tmp_path / "data").mkdir()
    (tmp_path / "train.py").write_text(SCRIPT)
    content = b'{"text": "data"}\n' * 100_000
    (tmp_path / "a.jsonl").write_bytes(content)
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(tmp_path / "data", **drive)
        async with (
            cluster(tmp_path, f"{folder}/s", config) as direct,
            coordinator_of(direct, tmp_path, monkeypatch, **drive) as (coordinator, client),
            replica(
                settings_for(
                    migrated_dsn,
                    f"127.0.0.1:{coordinator.port}",
                    api_secret=SECRET,
                    drive=DriveSettings(**there),
                )
            ) as gateway,
        ):
            key = await new_key(migrated_dsn, tenant=client.tenant)
            http = DriveClient(gateway, key.secret)
            async with AsyncClient(str(gateway.server.make_url("/")), key.secret) as files:
                for name in ("train.py", "a.jsonl"):
                    await files.files.upload(tmp_path / name, f"given/{name}")
                request = submission()
                url = f"scaidrive://{client.tenant}/given"
                request.training_config.framework.custom_script_path = f"{url}/train.py"
                request.data_config.sources.append(DataSource(path=f"{url}/a.jsonl"))
                job_id = await submit(client, request)
                job = await client.end(job_id)
                assert status_of(job) == "COMPLETED", job.error_message
                home = f"jobs/{job_id}"
                assert job.output_path == f"scaidrive://{client.tenant}/{home}/output"
                assert await http.names(home) == ["checkpoints", "output"]
                assert await http.names(f"{home}/checkpoints") == ["step-1.pt"]
                fetched = tmp_path / "fetched"
                await files.files.download(f"{home}/output/deep/model.bin", fetched)
                assert fetched.read_bytes() == content[::-1]
                await files.files.download(f"{home}/checkpoints/step-1.pt", fetched)
                assert fetched.read_bytes() == b"checkpoint"
            # As the console does it: a page of the folder, and a ticket for the link.
            listed = (await http.get(f"{home}/output/deep/?page_size=200")).data
            [entry] = listed["entries"]
            assert (entry["name"], entry["size_bytes"]) == ("model.bin", len(content))
            path = f"{home}/output/deep/model.bin"
            made = await http.ask(
                "POST",
                "/v1/modules/scaimind/stream-tickets",
                json={"kind": "drive", "path": path},
            )
            answer = await http.get(f"{path}?ticket={made.data['ticket']}", token=None)
            assert answer.body == content[::-1]
