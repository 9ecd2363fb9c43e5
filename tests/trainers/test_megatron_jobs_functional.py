"""Jobs of MEGATRON on a real coordinator, whose nodes say that they have GPUs."""

import shutil
from pathlib import Path

import pytest

from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.jobs_pb2 import FrameworkType, SubmitJobRequest, TrainingType
from tests.coordinator import harness
from tests.coordinator.harness import Client, running, status_of
from tests.trainers import sums

pytestmark = pytest.mark.slow

NODES = parse_virtual_nodes("a-1:2xA100-80GB")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch on a busy machine takes longer than what other tests wait for."""
    monkeypatch.setattr(harness, "PATIENCE", 600.0)


@pytest.fixture
def python_of_cpus(megatron_python: Path, tmp_path: Path) -> Path:
    """A Python that starts the trainers by megatron_on_cpu.py, and says their schema as it is."""
    root = tmp_path / "environment"
    (root / "bin").mkdir(parents=True)
    (root / "pyvenv.cfg").write_text(f"home = {megatron_python.parent}\n")
    shutil.copy(Path(__file__).with_name("megatron_on_cpu.py"), root / "start.py")
    python = root / "bin/python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *schema*) exec {megatron_python} "$@" ;; esac\n'
        'for each in "$@"; do launcher=$each; done\n'
        'export SCAIMIND_TEST_PROGRAM=$(dirname "$launcher")\n'
        f"exec {megatron_python} -P {root}/start.py\n"
    )
    python.chmod(0o755)
    return python


def request(client: Client, model: Path, *, ranks: int) -> SubmitJobRequest:
    drive = client.drive / client.tenant
    shutil.copytree(model, drive / "tiny")
    sums.write(drive / "sums.jsonl", sums.messages())
    made = SubmitJobRequest(name="sums")
    training = made.training_config
    training.training_type = TrainingType.TRAINING_TYPE_SFT
    training.framework.type = FrameworkType.FRAMEWORK_TYPE_MEGATRON
    training.framework.config["tensor_model_parallel_size"] = str(ranks)
    training.framework.distributed.world_size = ranks
    training.base_model.model_id = "scaidrive://local/tiny"
    training.hyperparameters.update({"max_steps": "6", "learning_rate": "3e-3"})
    made.data_config.sources.add(path="scaidrive://local/sums.jsonl")
    made.data_config.batch_size = 8
    made.data_config.max_seq_length = 64
    made.data_config.validation_split = 0.2
    made.output_config.checkpoint_interval_steps = 3
    made.resource_config.gpu_count = ranks
    return made


async def test_without_cuda_the_job_fails_with_the_reason_before_it_trains(
    tmp_path: Path, trainers_python: Path, tiny_model: Path
) -> None:
    async with running(tmp_path / "data", trainers_python=trainers_python, virtual_nodes=NODES) as (
        _,
        client,
    ):
        submitted = request(client, tiny_model, ranks=1)
        job_id = (await client.call("SubmitJob", submitted)).job_id
        job = await client.end(job_id)
        lines = [entry.message for entry in await client.log(job_id)]
        assert status_of(job) == "FAILED", "\n".join(lines)
        assert "MEGATRON needs NVIDIA GPUs, and this machine has none" in job.error_message
        assert not job.checkpoints
        assert not any("step 1 of" in line for line in lines)


async def test_two_ranks_divide_each_layer_and_export_a_model(
    tmp_path: Path, python_of_cpus: Path, tiny_model: Path
) -> None:
    async with running(
        tmp_path / "data", trainers_python=python_of_cpus, virtual_nodes=NODES, isolation="none"
    ) as (_, client):
        submitted = request(client, tiny_model, ranks=2)
        job_id = (await client.call("SubmitJob", submitted)).job_id
        job = await client.end(job_id)
        log = "\n".join(entry.message for entry in await client.log(job_id))
        assert status_of(job) == "COMPLETED", log
        assert "Megatron: 2 rank(s) divide each layer" in log
        assert {each.step for each in job.checkpoints} == {3, 6}
        output = client.drive / f"local/jobs/{job_id}/output"
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {
            each.name for each in output.iterdir()
        }
