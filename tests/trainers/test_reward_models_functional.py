"""The reward model that a submission names by its URL reaches the run, and is looked at there."""

import shutil
from pathlib import Path

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import FrameworkType, SubmitJobRequest, TrainingType
from tests.coordinator import harness
from tests.coordinator.harness import running, status_of
from tests.trainers.arithmetic import preferences, write


async def test_a_reward_model_that_is_no_classifier_fails_the_job_before_it_trains(
    tmp_path: Path, trainers_python: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing torch on a busy machine takes longer than what other tests wait for.
    monkeypatch.setattr(harness, "PATIENCE", 240.0)
    async with running(tmp_path, trainers_python=trainers_python) as (_, client):
        drive = client.drive / client.tenant
        shutil.copytree(tiny_model, drive / "tiny")
        write(drive / "pairs.jsonl", preferences())
        submitted = SubmitJobRequest(name="rewarded")
        training = submitted.training_config
        training.training_type = TrainingType.TRAINING_TYPE_RLHF
        training.framework.type = FrameworkType.FRAMEWORK_TYPE_HF_TRAINER
        training.base_model.model_id = "scaidrive://local/tiny"
        training.hyperparameters["reward_model"] = "scaidrive://local/tiny"
        submitted.data_config.sources.add(path="scaidrive://local/pairs.jsonl")
        submitted.data_config.max_seq_length = 64
        job_id = (await client.call("SubmitJob", submitted)).job_id
        job = await client.end(job_id)
        lines = [entry.message for entry in await client.log(job_id)]
        assert status_of(job) == "FAILED", "\n".join(lines)
        said = "hyperparameters.reward_model: 'scaidrive://local/tiny' is no classifier"
        assert any(said in line for line in lines), "\n".join(lines)
        assert not job.checkpoints
