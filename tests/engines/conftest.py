"""The cluster of these tests."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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
