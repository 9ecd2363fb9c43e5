"""Replacing or deleting what a running job was given does not change its run."""

from pathlib import Path

import pytest

from app.drive.settings import DriveSettings
from generated.mindcoordinator.v1.jobs_pb2 import DataConfig, DataSource
from tests.coordinator.harness import SECRET, config_for, running
from tests.drive.asking import DriveClient
from tests.replicas import new_key, replica, settings_for

SCRIPT = """
    import json, os, pathlib, time
    config = json.load(open(os.environ["SCAIMIND_JOB_CONFIG"]))
    print("ready", flush=True)
    while not pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"], "go").exists():
        time.sleep(0.05)
    for source in config["data_config"]["sources"]:
        path = pathlib.Path(source["local_path"])
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*.jsonl"))
        print("has", *(each.read_text().strip() for each in files), flush=True)
"""


@pytest.mark.parametrize("cache_bytes", [0, 10**9], ids=["in-place", "cached"])
async def test_a_run_has_what_was_there_when_it_was_prepared(
    migrated_dsn: str, tmp_path: Path, cache_bytes: int
) -> None:
    drive = config_for(tmp_path).drive_root
    async with running(tmp_path, cache_bytes=cache_bytes) as (coordinator, client):
        settings = settings_for(
            migrated_dsn,
            f"127.0.0.1:{coordinator.port}",
            api_secret=SECRET,
            drive=DriveSettings(dir=drive),
        )
        async with replica(settings) as gateway:
            key = await new_key(migrated_dsn, tenant=client.tenant)
            http = DriveClient(gateway, key.secret)
            for name in ("one.jsonl", "two.jsonl", "many/a.jsonl", "many/b.jsonl"):
                assert (await http.put(f"data/{name}", f"{name} first\n".encode())).status == 201
            urls = [
                f"scaidrive://{client.tenant}/data/{name}" for name in ("one.jsonl", "two.jsonl")
            ]
            urls.append(f"scaidrive://{client.tenant}/data/many")
            config = DataConfig(sources=[DataSource(path=url) for url in urls])
            job = await client.submit(SCRIPT, data_config=config)
            await client.until_line(job, "ready")
            assert (await http.put("data/one.jsonl", b"later\n")).status == 200
            assert (await http.put("data/many/a.jsonl", b"later\n")).status == 200
            assert (await http.put("data/many/c.jsonl", b"later\n")).status == 201
            assert (await http.delete("data/two.jsonl")).status == 204
            assert (await http.delete("data/many?recursive=true")).status == 204
            assert (await http.delete("train.py")).status in (204, 404)
            (drive / client.tenant / "jobs" / job / "checkpoints" / "go").touch()
            ended = await client.end(job)
            assert ended.error_message == ""
            lines = [each.message for each in await client.log(job)]
    assert [each for each in lines if each.startswith("has")] == [
        "has one.jsonl first",
        "has two.jsonl first",
        "has many/a.jsonl first many/b.jsonl first",
    ]
    assert list(drive.glob(".pinned/*")) == []
