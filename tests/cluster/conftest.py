"""A Ray cluster of a head and three workers for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.rig import RayCluster, ray_cluster, ray_python


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[RayCluster]:
    """The cluster of all tests."""
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as directory,
        ray_cluster(ray_python(), Path(directory), port=26379, workers=3) as cluster,
    ):
        yield cluster


@pytest.fixture
def ray(shared_ray: RayCluster) -> Iterator[RayCluster]:
    """The cluster. A test leaves three workers that live."""
    yield shared_ray
    # What the next coordinator of a test's data directory would let go of holds GPUs and cores.
    shared_ray.end_actors()
