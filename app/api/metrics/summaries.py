"""One number of many jobs: as many calls as jobs, a few at a time."""

import asyncio
from collections.abc import Sequence
from typing import Final

from app.api.metrics.columns import columns, selected
from app.bridge.client import CoordinatorClient
from app.bridge.converters import JsonObject
from app.caller import Caller
from app.errors import COORDINATOR_TIMEOUT, ApiError

#: Calls at a time.
CONCURRENCY: Final = 8
#: Seconds for all of them together; what is not there by then failed with a time-out.
PATIENCE: Final = 15.0


async def summarize(
    client: CoordinatorClient,
    caller: Caller,
    job_ids: Sequence[str],
    *,
    key: str,
    points: int,
    x: str,
) -> list[JsonObject]:
    """Fetch a number of each job, in their order; a failure is told of its job alone."""
    loop = asyncio.get_running_loop()
    latest, room = loop.time() + PATIENCE, asyncio.Semaphore(CONCURRENCY)

    async def one(job_id: str) -> JsonObject:
        try:
            async with asyncio.timeout_at(latest), room:
                answer = await client.get_job_metrics(
                    caller, job_id, max_points=points, keys=[key], with_buckets=True
                )
        except TimeoutError:
            return _failed(job_id, ApiError(COORDINATOR_TIMEOUT))
        except ApiError as error:
            return _failed(job_id, error)
        drawn = columns(selected(answer, keys=[key], from_step=None, to_step=None), x=x)
        series = drawn["series"].get(key, {"x": [], "y": []})
        return {
            "job_id": job_id,
            "total_points": drawn["total_points"],
            "series": series,
            "error": None,
        }

    return await asyncio.gather(*(one(job_id) for job_id in job_ids))


def _failed(job_id: str, error: ApiError) -> JsonObject:
    told = {"code": error.kind.code, "message": error.message}
    return {"job_id": job_id, "total_points": 0, "series": None, "error": told}
