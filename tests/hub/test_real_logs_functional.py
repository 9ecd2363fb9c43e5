"""Logs of real jobs on a real coordinator, in each way in which they are read."""

from pathlib import Path
from typing import Any

from tests.coordinator.harness import SECRET, client_of, coordinator_process
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.downloads import download
from tests.hub.test_forms_functional import get

LINES = 6_000
SCRIPT = f"""
import sys, time
for number in range(1, {LINES} + 1):
    print(f"{{'ERROR' if number % 10 == 0 else 'INFO'}}: line {{number}} of the l\\u00f6g")
print("load", end="", flush=True)
time.sleep(1.3)
print("a warning", file=sys.stderr, flush=True)
time.sleep(1.3)
print("ing done")
"""


def expected() -> list[str]:
    return [
        f"{'ERROR' if number % 10 == 0 else 'INFO'}: line {number} of the lög"
        for number in range(1, LINES + 1)
    ]


async def json_of(gateway: Gateway, job: str, path: str) -> Any:
    assert gateway.server.port is not None
    got = await download(("127.0.0.1", gateway.server.port), f"/jobs/{job}/{path}")
    assert got.status == 200, got.body
    return got.data


async def test_a_log_of_a_real_job(make_gateway: GatewayMaker, tmp_path: Path) -> None:
    async with (
        coordinator_process(tmp_path) as coordinator,
        client_of(coordinator.port, tmp_path / "drive", "acme") as client,
    ):
        job_id = await client.submit(SCRIPT)
        await client.end(job_id)
        log = [(entry.offset, entry.message) for entry in await client.log(job_id)]
        gateway = await make_gateway(
            address=f"127.0.0.1:{coordinator.port}", api_secret=SECRET, history_tail=100
        )
        whole: dict[str, Any] = {"job": job_id, "from_": 1, "follow": "false", "level": "DEBUG"}

        text = await get(gateway, **whole, format="text", headers={"Accept-Encoding": "gzip"})
        assert text.complete
        printed = [line for line in text.lines if line.startswith(("INFO: line", "ERROR: line"))]
        assert printed == expected()
        assert "loading done" in text.lines
        assert "a warning" in text.lines

        ndjson = await get(gateway, **whole, format="ndjson")
        *entries, end = ndjson.objects
        assert [(each["offset"], each["message"]) for each in entries] == log
        assert (end["event"], end["status"]) == ("end", "COMPLETED")

        warned = await get(gateway, **whole, format="text", source="stderr", contains="WARN")
        assert warned.lines == ["a warning"]

        # Backward, page by page, it is the same log.
        backward: list[tuple[int, str]] = []
        before: int | None = log[-1][0] + 1
        while before is not None:
            page = await json_of(gateway, job_id, f"log-entries?before={before}&limit=700")
            found = [(each["offset"], each["message"]) for each in page["entries"]]
            backward = found + backward
            before = page["next"]
        assert backward == log
        first = await json_of(gateway, job_id, "log-entries?matches=%5EERROR&limit=3")
        assert [each["message"] for each in first["entries"]] == expected()[9:30:10]

        marks = await json_of(gateway, job_id, "log-marks?buckets=50")
        assert len(marks["buckets"]) <= 50
        assert sum(each["error"] for each in marks["buckets"]) == LINES // 10
        levels = ("debug", "info", "warning", "error")
        assert sum(each[level] for each in marks["buckets"] for level in levels) == len(log)
        assert len(marks["run_offsets"]) == 1

        async with gateway.search(
            job=job_id, matches="line%20[0-9]*77%20", contains="L%C3%96G", limit=20
        ) as searching:
            events = await searching.rest()
        matches = [each.data for each in events if each.name == "match"]
        assert [each["entry"]["message"] for each in matches] == [
            line for line in reversed(expected()) if "77 of" in line
        ][:20]
        start, stop = matches[0]["spans"][-1]
        assert matches[0]["entry"]["message"][start:stop].lower() == "lög"
        assert (events[-1].name, events[-1].data["reason"]) == ("done", "limit")
        rest = gateway.search(
            job=job_id, matches="line%20[0-9]*77%20", limit=1000, before=events[-1].data["before"]
        )
        async with rest as searching:
            events = await searching.rest()
        assert len([each for each in events if each.name == "match"]) == LINES // 100 - 20
        assert events[-1].data["reason"] == "exhausted"
