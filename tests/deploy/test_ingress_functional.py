"""Six hundred clients behind nginx, while everything in front of them is restarted.

Three gateways, one coordinator with twenty real jobs, one PostgreSQL, and
nginx as the manifests configure it. No client may lose an entry, see one
twice, or be answered in a way after which a browser would not come back.
"""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from app.scaikey.api_keys import create_key
from tests.deploy.event_source import Crowd, EventSource
from tests.deploy.ingress import configuration, nginx
from tests.deploy.processes import Replica, coordinator, replicas
from tests.hub.sse import parse
from tests.ports import free_ports

API = "/v1/modules/scaimind"
TENANT = "acme"
JOBS = 20
CLIENTS_PER_JOB = 30
CLIENTS = JOBS * CLIENTS_PER_JOB

#: Ten lines a second, until the job is cancelled.
SCRIPT = """
import itertools, time
for number in itertools.count():
    print(f"line {number}", flush=number % 5 == 4)
    if number % 5 == 4:
        time.sleep(0.5)
"""
SUBMISSION = {
    "name": "watched",
    "training_config": {
        "training_type": "SFT",
        "base_model": {"model_id": "none"},
        "framework": {"type": "CUSTOM", "custom_script_path": f"scaidrive://{TENANT}/train.py"},
    },
    "data_config": {"sources": [{"path": f"scaidrive://{TENANT}/data.jsonl"}]},
    "resource_config": {"cpu_count": 1},
}


def busiest_second(pauses: Sequence[int]) -> int:
    """The most of these points in time, in ms, that one second holds."""
    return max(
        (sum(start <= each < start + 1000 for each in pauses) for start in pauses), default=0
    )


async def upstreams(gateways: Sequence[Replica]) -> list[float]:
    return [await each.metric("scaimind_upstream_streams") for each in gateways]


async def last_offset(http: aiohttp.ClientSession, job: str) -> int:
    """How long the log of a job that has ended is."""
    async with http.get(
        f"{API}/jobs/{job}/logs", params={"follow": "false", "tail": "0"}
    ) as answer:
        last = parse(await answer.read())[-1]
    assert last.name == "end"
    return last.offset


async def test_no_entry_is_lost_or_doubled_while_all_of_it_is_restarted(
    migrated_dsn: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    drive = tmp_path / "coordinator" / "drive" / TENANT
    drive.mkdir(parents=True)
    (drive / "train.py").write_text(SCRIPT)
    (drive / "data.jsonl").write_text('{"text": "a"}\n')
    key = create_key(migrated_dsn, tenant_id=TENANT, user_id="ann", roles=["tenant_admin"]).secret
    (tmp_path / "nginx").mkdir()
    front, back, *ports = free_ports(5)
    crowd = Crowd()
    async with (
        coordinator(tmp_path / "coordinator", back),
        replicas(ports, coordinator=f"127.0.0.1:{back}", dsn=migrated_dsn) as gateways,
        nginx(tmp_path / "nginx", configuration(front, ports), front) as ingress,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{front}", headers={"Authorization": f"Bearer {key}"}
        ) as http,
    ):
        jobs = []
        for _ in range(JOBS):
            async with http.post(f"{API}/jobs", json=SUBMISSION) as answer:
                assert answer.status == 201, await answer.text()
                jobs.append((await answer.json())["data"]["job_id"])
        clients = {
            job: [
                EventSource(crowd, port=front, path=f"{API}/jobs/{job}/logs?tail=1000000", key=key)
                for _ in range(CLIENTS_PER_JOB)
            ]
            for job in jobs
        }
        async with asyncio.timeout(300), asyncio.TaskGroup() as running:
            for client in itertools.chain.from_iterable(clients.values()):
                running.create_task(client.run(), name="client")
            await crowd.all_connected(CLIENTS)

            # The watchers of a job meet on one replica.
            met = await upstreams(gateways)
            assert sum(met) == JOBS
            assert sum([await each.metric("scaimind_watchers") for each in gateways]) == CLIENTS

            waves = []
            for gateway in gateways:
                told_before = len(crowd.told)
                assert await gateway.stop() == 0
                await gateway.start()
                waves.append(crowd.told[told_before:])
            sent_away = len(crowd.told)
            assert sent_away > CLIENTS / 2
            await crowd.all_connected(CLIENTS, arrivals=CLIENTS + sent_away)

            killed = gateways[met.index(max(met))]
            cut_off = int(await killed.metric("scaimind_watchers"))
            arrivals = crowd.arrivals + cut_off
            assert await killed.stop(signal.SIGKILL) == -signal.SIGKILL
            await killed.start()
            await crowd.all_connected(CLIENTS, arrivals=arrivals)

            arrivals = crowd.arrivals + CLIENTS
            await ingress.reload(signal.SIGHUP)
            await crowd.all_connected(CLIENTS, arrivals=arrivals)

            for job in jobs:
                async with http.post(f"{API}/jobs/{job}/cancel") as answer:
                    assert answer.status == 200, await answer.text()

        for job, group in clients.items():
            last = await last_offset(http, job)
            assert last > 50
            for client in group:
                assert client.offsets == list(range(1, last + 1))
        assert not crowd.gaps
        # Each drain tells its clients to come back in no more than 15 % at a time.
        for wave in waves:
            if len(wave) > CLIENTS / 10:
                assert busiest_second(wave) <= 0.15 * len(wave)
        for gateway in gateways:
            assert gateway.complaints() == []
    seconds = Counter(int(moment - crowd.came_back[0]) for moment in crowd.came_back)
    for name, seen in (
        ("upstream streams by gateway", met),
        ("clients sent away by each drain", [len(wave) for wave in waves]),
        ("most of them told to come back in one second", [busiest_second(wave) for wave in waves]),
        ("clients cut off by the kill", cut_off),
        ("clients that came back, by second", [seconds[n] for n in range(max(seconds) + 1)]),
    ):
        record_property(name, seen)
