"""`Idempotency-Key` through everything: HTTP, the gateway, gRPC, the coordinator's database."""

import asyncio
from typing import Any

from aiohttp import ClientSession

from app.schemas.evaluations import SubmitEvaluationSchema
from app.schemas.jobs import SubmitJobSchema
from tests.api.endpoints import PREFIX
from tests.openapi.conftest import System

Answer = tuple[int, Any]


async def test_what_is_submitted_twice_is_made_once(system: System) -> None:
    job = {**(SubmitJobSchema.EXAMPLE or {}), "name": "once"}
    evaluation = {**(SubmitEvaluationSchema.EXAMPLE or {}), "job_id": system.ids.completed}

    async with ClientSession(system.url, headers={"Authorization": f"Bearer {system.key}"}) as web:

        async def submit(what: str, body: Any, key: str) -> Answer:
            async with web.post(
                f"{PREFIX}/{what}", json=body, headers={"Idempotency-Key": key}
            ) as response:
                return response.status, await response.json()

        for what, body, name in (
            ("jobs", job, "job_id"),
            ("evaluations", evaluation, "evaluation_id"),
        ):
            async with asyncio.timeout(60):
                answers = await asyncio.gather(
                    *(submit(what, body, key) for key in ['"a key"', "another"] * 10)
                )
            assert {status for status, _ in answers} == {201}, answers
            made = [answer["data"][name] for _, answer in answers]
            assert len(set(made[::2])) == len(set(made[1::2])) == 1
            assert len(set(made)) == 2

        status, answer = await submit("jobs", {**job, "name": "other"}, "another")
        assert (status, answer["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")

        async with web.get(f"{PREFIX}/jobs", params={"page_size": 100}) as response:
            listed = (await response.json())["data"]["jobs"]
        assert len([each for each in listed if each["name"] == "once"]) == 2
