"""The cluster of these tests, and a run that nobody has written of."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.logs import log as logs
from app.coordinator.logs import run_starts
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.storage.job_directory import JobDir, RunDir
from tests.coordinator.harness import config_for
from tests.engines.direct import DirectCluster, cluster


@pytest.fixture
async def direct(tmp_path: Path) -> AsyncIterator[DirectCluster]:
    """Three nodes, without Ray."""
    (tmp_path / "data").mkdir()
    with tempfile.TemporaryDirectory() as folder:
        config = config_for(tmp_path / "data")
        async with cluster(tmp_path, f"{folder}/s", config) as direct:
            yield direct


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run whose job has no records yet."""
    job = JobDir(tmp_path / "job")
    job.path.mkdir()
    job.lock.touch()
    logs.create(job.log)
    run_starts.create(job.log)
    MetricsWriter(job.metrics).close()
    run = job.run(1)
    run.path.mkdir(parents=True)
    return run


@pytest.fixture
def records(run: RunDir) -> Iterator[MergedRecords]:
    with closing(MergedRecords(run, "n", bounds=RecordBounds())) as records:
        yield records
