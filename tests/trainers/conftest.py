"""For tests that train real models: the environment, a tiny model, and what runs a job."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.trainers.environment import COMMAND, find_python, has_megatron, make_tiny_model
from tests.trainers.training import Runner


@pytest.fixture(scope="session")
def trainers_python() -> Path:
    """The Python of the environment for training; without one the test is skipped."""
    if (python := find_python()) is None:
        pytest.skip(f"there is no environment for training; make it with: {COMMAND}")
    return python


@pytest.fixture(scope="session")
def megatron_python(trainers_python: Path) -> Path:
    """The same with megatron-core in it; without that the test is skipped."""
    if not has_megatron(trainers_python):
        pytest.skip(f"there is no megatron-core; add it with: {COMMAND} --with-megatron")
    return trainers_python


@pytest.fixture(scope="session")
def run_megatron(
    megatron_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    """As `run_trainer`, where MEGATRON runs on CPUs."""
    folder = tmp_path_factory.mktemp("megatron")
    launcher = Path(__file__).with_name("megatron_on_cpu.py")
    with closing(Runner(megatron_python, folder, launcher)) as runner:
        yield runner


@pytest.fixture(scope="session")
def tiny_model(trainers_python: Path) -> Path:
    """A folder with a Llama of a million random weights, to be read only."""
    return make_tiny_model(trainers_python)


@pytest.fixture(scope="session")
def run_trainer(
    trainers_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    """Runs a job's processes without a coordinator: `run_trainer(job_config(...)) -> Result`."""
    with closing(Runner(trainers_python, tmp_path_factory.mktemp("trainers"))) as runner:
        yield runner
