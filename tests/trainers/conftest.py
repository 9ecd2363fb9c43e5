"""For tests that train real models: the environment, a tiny model, and what runs a job."""

from pathlib import Path

import pytest

from tests.trainers.environment import COMMAND, find_python, make_tiny_model
from tests.trainers.training import Runner


@pytest.fixture(scope="session")
def trainers_python() -> Path:
    """The Python of the environment for training; without one the test is skipped."""
    if (python := find_python()) is None:
        pytest.skip(f"there is no environment for training; make it with: {COMMAND}")
    return python


@pytest.fixture(scope="session")
def tiny_model(trainers_python: Path) -> Path:
    """A folder with a Llama of a million random weights, to be read only."""
    return make_tiny_model(trainers_python)


@pytest.fixture(scope="session")
def run_trainer(trainers_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs a job's processes without a coordinator: `run_trainer(job_config(...)) -> Result`."""
    return Runner(trainers_python, tmp_path_factory.mktemp("trainers"))
