"""Watchers follow a job through a gateway while agents, the driver and a node die."""

import random
from pathlib import Path

import pytest

from tests.coordinator.harness import status_of
from tests.engines.crowd import assert_runs, counting, crowd, go
from tests.engines.direct import DirectCluster, coordinator_of
from tests.engines.test_remote_functional import FAST


async def test_watchers_miss_nothing_whoever_dies_at_whatever_moment(
    direct: DirectCluster, tmp_path: Path, migrated_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    victims = ["agents", "driver", "node", "agents", "driver"]
    chance.shuffle(victims)
    async with coordinator_of(direct, tmp_path, monkeypatch, **FAST) as (coordinator, client):
        job_id = await client.submit(
            counting(pause=0.01),
            resource_config={"gpu_count": 1},
            training_config={"max_retries": 10},
        )
        async with crowd(migrated_dsn, f"127.0.0.1:{coordinator.port}") as watchers:
            watchers.follow(job_id, 10)
            await watchers.until_each_has(3)
            for victim in victims:
                await watchers.until_more(10 * chance.randint(2, 30))
                # It may be on its way to another node.
                (node_id,) = (await client.until_status(job_id, "TRAINING")).node_ids
                match victim:
                    case "agents":
                        await direct.kill_agents(node_id)
                    case "driver":
                        await direct.restart_driver()
                    case _:
                        await direct.lose(node_id)
                        await direct.join(node_id)
                        await direct.examined(node_id)
            await watchers.until_more(10 * 20)
            await go(client, job_id)
            entries = await client.log(job_id)
            await watchers.until_ended()
            tally = watchers.judged({job_id: entries})
        job = await client.job(job_id)
        assert status_of(job) == "COMPLETED", job.error_message
        assert assert_runs(entries) == 2
        assert tally.clients == 10
        assert not tally.bad, (tally.lost, tally.doubled, set(tally.wrong))
