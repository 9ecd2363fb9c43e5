"""tus-js-client uploads to the drive; and what is left when a gateway is killed meanwhile."""

import asyncio
import hashlib
import json
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.drive.gateways import GatewayProcess
from tests.npm import installed
from tests.programs import program
from tests.replicas import new_key

MiB = 1024 * 1024
SCRIPT = Path(__file__).with_name("upload.mjs")


@pytest.fixture
async def gateway(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    root = tmp_path / "drive"
    root.mkdir()
    async with GatewayProcess(migrated_dsn, root, tmp_path / "log") as running:
        yield running


@pytest.fixture
async def key(migrated_dsn: str) -> str:
    return (await new_key(migrated_dsn, tenant="acme")).secret


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(5 * MiB + 17))
    return path


class Upload:
    """One run of tus-js-client."""

    def __init__(self, gateway: GatewayProcess, key: str, file: Path, **options: Any) -> None:
        endpoint = f"{gateway.url}/v1/drive-uploads/"
        self._given = {"endpoint": endpoint, "key": key, "file": str(file), **options}
        self.said: list[dict[str, Any]] = []

    async def run(self) -> dict[str, Any]:
        """Run it to its end; the last thing that it said."""
        async for _ in self.going():
            pass
        return self.said[-1]

    async def going(self) -> AsyncIterator[dict[str, Any]]:
        """Run it, and yield what it says."""
        process = await asyncio.create_subprocess_exec(
            *(
                program("node"),
                str(SCRIPT),
                str(installed(SCRIPT.parent) / "node_modules" / "tus-js-client"),
            ),
            json.dumps(self._given),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self.said.append(json.loads(line))
                yield self.said[-1]
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def staged(root: Path) -> list[str]:
    return sorted(each.name for each in (root / ".uploads" / "acme").iterdir())


#: How the client is told to send it.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"chunk": 10 * MiB},
    {"withCreation": True},
    {"deferred": True},
    {"override": True},
    {"stopAt": 2 * MiB},
)


async def test_a_file_arrives_however_it_is_sent(
    gateway: GatewayProcess, key: str, source: Path, tmp_path: Path
) -> None:
    for number, way in enumerate(WAYS):
        last = await Upload(gateway, key, source, path=f"data/ä {number}", **way).run()
        assert "done" in last, (way, last)
        arrived = tmp_path / "drive" / "acme" / "data" / f"ä {number}"
        assert digest(arrived) == digest(source)


async def test_a_client_hears_why_it_is_refused(
    gateway: GatewayProcess, key: str, source: Path, tmp_path: Path
) -> None:
    refused = await Upload(gateway, key, source, path="../a", retryDelays=None).run()
    assert refused["failed"] == 400
    assert "FILE_NAME_INVALID" in refused["message"]
    refused = await Upload(gateway, "sgk_none", source, path="a", retryDelays=None).run()
    assert refused["failed"] == 401
    assert not (tmp_path / "drive" / "acme").exists()


async def test_an_upload_that_is_given_up_is_gone(
    gateway: GatewayProcess, key: str, source: Path, tmp_path: Path
) -> None:
    upload = Upload(gateway, key, source, path="a", stopAt=MiB, terminate=True)
    assert "done" in await upload.run()
    assert staged(tmp_path / "drive") in ([], ["lock"])


async def test_a_gateway_that_is_killed_leaves_nothing_half_done(
    gateway: GatewayProcess, key: str, tmp_path: Path
) -> None:
    await kill_during_uploads(gateway, key, tmp_path, kills=3, size=12 * MiB)


@pytest.mark.slow
async def test_a_gateway_that_is_killed_thirty_times_leaves_nothing_half_done(
    gateway: GatewayProcess, key: str, tmp_path: Path
) -> None:
    await kill_during_uploads(gateway, key, tmp_path, kills=30, size=100 * MiB)


async def kill_during_uploads(
    gateway: GatewayProcess, key: str, tmp_path: Path, *, kills: int, size: int
) -> None:
    """Kill it at random moments, most of them while a part comes, until all of it has come.

    Beside it, a file is put over and over.
    """
    chance = random.Random(15)
    folder = tmp_path / "drive" / "acme"
    source = tmp_path / "large"
    source.write_bytes(os.urandom(size))
    upload = Upload(gateway, key, source, path="large", chunk=size // (kills + 2))
    stored: list[bytes] = []
    putting = asyncio.create_task(put_over_and_over(gateway, key, stored))
    accepted, killed = 0, 0
    async for said in upload.going():
        if "failed" in said:
            break
        accepted = said.get("accepted", accepted)
        # A part was begun just now: at a random moment of it.
        if "sent" in said and killed < kills and accepted >= killed * (size // (kills + 2)):
            killed += 1
            await asyncio.sleep(chance.random() / 50)
            await gateway.kill_and_start()
            assert not (folder / "large").exists() or digest(folder / "large") == digest(source)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    assert "done" in upload.said[-1], upload.said[-1]
    assert killed == kills
    assert digest(folder / "large") == digest(source)
    # The other file is one of those that were sent, as a whole.
    if (folder / "small").exists():
        content = (folder / "small").read_bytes()
        assert content == content[:1] * MiB
    names = {each.name for each in folder.iterdir()}
    assert names <= {"large", "small"}
    await nothing_is_left(gateway, key, tmp_path / "drive")


async def put_over_and_over(gateway: GatewayProcess, key: str, stored: list[bytes]) -> None:
    url = f"{gateway.url}/v1/drive/small"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        for number in range(1_000_000):
            content = bytes([number % 256]) * MiB
            try:
                async with http.put(url, data=chunks(content)) as answer:
                    assert answer.status in (200, 201)
                    stored.append(content[:1])
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 64 * 1024):
        yield content[start : start + 64 * 1024]


async def nothing_is_left(gateway: GatewayProcess, key: str, root: Path) -> None:
    """Age what killed gateways left by a minute, and see that the next one clears it away."""
    staging = root / ".uploads" / "acme"
    moment = time.time() - 100
    for each in list(staging.iterdir()):
        if not each.name.endswith(".json"):
            os.utime(each, (moment, moment))
    await gateway.kill_and_start()
    # An upload waits for the tenant's first count, before which is cleared.
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http,
        http.put(f"{gateway.url}/v1/drive/after", data=b"1") as answer,
    ):
        assert answer.status == 201
    left = {name.rpartition(".")[2] for name in staged(root)}
    assert left <= {"lock", "json"}, left
