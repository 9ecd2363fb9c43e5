"""A job's log on a real coordinator's disk is damaged: its watchers are told, and reach the end."""

from pathlib import Path

import pytest

from tests.coordinator.harness import SECRET, client_of, coordinator_process
from tests.hub.conftest import GatewayMaker

LINES = 3_000
SCRIPT = f"""
for number in range(1, {LINES} + 1):
    print(f"{{'ERROR' if number % 10 == 0 else 'INFO'}}: line {{number}} " + "x" * 40)
"""


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
async def test_overwritten_bytes_of_a_log_are_told_and_the_rest_is_delivered(
    make_gateway: GatewayMaker, tmp_path: Path, place: float
) -> None:
    drive = tmp_path / "drive"
    async with (
        coordinator_process(tmp_path) as coordinator,
        client_of(coordinator.port, drive, "acme") as client,
    ):
        job_id = await client.submit(SCRIPT)
        await client.end(job_id)
        log = await client.log(job_id)
        levels = {entry.offset: entry.level for entry in log}
        (entries,) = (tmp_path / "jobs" / job_id).rglob("entries")
        with entries.open("r+b") as file:
            file.seek(int(place * (entries.stat().st_size - 300)))
            file.write(b"\xff" * 300)
        gateway = await make_gateway(
            address=f"127.0.0.1:{coordinator.port}",
            api_secret=SECRET,
            history_tail=100,
            message_timeout=5,
        )
        for level, least in (("DEBUG", 0), ("INFO", 2), ("ERROR", 4)):
            async with gateway.watch(job=job_id, level=level, tail=1_000_000) as watching:
                assert watching.status == 200
                events = await watching.rest()
            assert events[-1].name == "end"
            got = [each.offset for each in events if each.name == "log"]
            assert got == sorted(set(got))
            missing = {
                offset
                for each in events
                if each.name == "gap"
                for offset in range(_offset(each.data["from"]), _offset(each.data["to"]) + 1)
            }
            assert {each.data["reason"] for each in events if each.name == "gap"} <= {"missing"}
            assert {offset for offset, own in levels.items() if own >= least} <= {*got, *missing}
            damaged = [each for each in events if "damaged" in str(each.data.get("message"))]
            assert missing or damaged


def _offset(text: str) -> int:
    return int(text.partition(":")[2])
