"""Jobs as the coordinator gives them, for tests of the cache."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from app.bridge.converters import JsonObject, to_json
from app.cache.settings import CacheSettings
from app.cache.writer import JobWriter
from app.database.pool import Pool
from app.telemetry.metrics import Metrics
from generated.mindcoordinator.v1.jobs_pb2 import Job, JobStatus, ResourceConfig

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(minute: float) -> datetime:
    """A time of the coordinator's clock."""
    return START + timedelta(minutes=minute)


def rfc3339(minute: float) -> str:
    """The same, as the API shows it."""
    return at(minute).isoformat().replace("+00:00", "Z")


def job(
    job_id: str = "job-1",
    status: str = "TRAINING",
    *,
    revision: int = 1,
    updated: float = 0,
    created: float = 0,
    started: float | None = None,
    ended: float | None = None,
    gpus: int = 1,
    **fields: Any,
) -> JsonObject:
    """A job; times are in minutes of the coordinator's clock."""
    message = Job(
        job_id=job_id,
        tenant_id="acme",
        status=JobStatus.Value(f"JOB_STATUS_{status}"),
        revision=revision,
        resource_config=ResourceConfig(gpu_count=gpus),
        **fields,
    )
    message.updated_at.FromDatetime(at(updated))
    message.created_at.FromDatetime(at(created))
    if started is not None:
        message.started_at.FromDatetime(at(started))
    if ended is not None:
        message.ended_at.FromDatetime(at(ended))
    return to_json(message)


def new_writer(pool: Pool, metrics: Metrics | None = None, **settings: Any) -> JobWriter:
    """A replica's writer; closing it writes all that it was told."""
    return JobWriter(
        database=pool,
        settings=CacheSettings(**{"flush_interval": 0.0, "retention_days": 0, **settings}),
        metrics=metrics or Metrics(),
        clock=time.monotonic,
    )


async def write(pool: Pool, *jobs: JsonObject, tenant: str = "acme") -> None:
    """Have some jobs seen, and written."""
    writer = new_writer(pool, buffer_jobs=100_000)
    for each in jobs:
        writer.record_job(tenant, each)
    await writer.close()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """A metric's value."""
    found = registry.get_sample_value(name, labels)
    assert found is not None, name
    return found
