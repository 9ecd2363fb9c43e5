"""Jobs without a script, on a real coordinator: submitted, watched, interrupted, registered."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    Job,
    ListCheckpointsRequest,
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
    SubmitJobRequest,
    TrainingType,
)
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest
from tests.coordinator import harness
from tests.coordinator.harness import Client, running, status_of
from tests.trainers import sums

SHORT = {"max_steps": "12", "learning_rate": "1e-2", "lora_r": "8", "logging_steps": "2"}
LONG = {"max_steps": "240", "learning_rate": "1e-3", "logging_steps": "5"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch on a busy machine takes longer than what other tests wait for."""
    monkeypatch.setattr(harness, "PATIENCE", 240.0)


@pytest.fixture
def settings(trainers_python: Path) -> dict[str, Any]:
    return {"trainers_python": trainers_python, "stop_grace": 60.0}


def request(
    client: Client,
    model: Path,
    *,
    training_type: str = "LORA",
    hyperparameters: Mapping[str, str] = SHORT,
    **changes: Any,
) -> SubmitJobRequest:
    """A fine-tuning of the tiny model, which is on the drive, on sums."""
    drive = client.drive / client.tenant
    if not (drive / "tiny").exists():
        shutil.copytree(model, drive / "tiny")
        sums.write(drive / "sums.jsonl", sums.messages())
    made = SubmitJobRequest(name="sums")
    made.training_config.training_type = TrainingType.Value(f"TRAINING_TYPE_{training_type}")
    made.training_config.framework.type = FrameworkType.FRAMEWORK_TYPE_HF_TRAINER
    made.training_config.base_model.model_id = "scaidrive://local/tiny"
    made.training_config.hyperparameters.update(hyperparameters)
    made.data_config.sources.add(path="scaidrive://local/sums.jsonl")
    made.data_config.batch_size = 4
    made.data_config.max_seq_length = 64
    made.resource_config.cpu_count = 1
    for name, value in changes.items():
        made.MergeFrom(SubmitJobRequest(**{name: value}))
    return made


async def submit(client: Client, submitted: SubmitJobRequest) -> str:
    job_id: str = (await client.call("SubmitJob", submitted)).job_id
    return job_id


async def completed(client: Client, job_id: str) -> tuple[Job, str]:
    """The job, and its log."""
    job = await client.end(job_id)
    log = "\n".join(entry.message for entry in await client.log(job_id))
    assert status_of(job) == "COMPLETED", log
    return job, log


async def test_an_adapter_is_trained_registered_and_trained_on_by_two_ranks(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    async with running(tmp_path, **settings) as (_, client):
        output = {
            "register_model": True,
            "model_name": "sums",
            "export_format": "adapter",
            "checkpoint_interval_steps": 5,
        }
        data = {"validation_split": 0.1}
        first = await submit(
            client, request(client, tiny_model, output_config=output, data_config=data)
        )
        job, log = await completed(client, first)
        # What is to be known before anything is waited for.
        for told in ("Effective batch: 4", "Trainable parameters: ", "First example", "Memory"):
            assert told in log.partition("step 2 of 12")[0]
        assert (job.progress.step, job.progress.total_steps) == (12, 12)
        metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=first))
        losses = [each.loss for each in metrics.points if each.HasField("loss")]
        assert losses[-1] < losses[0]
        assert any("eval_loss" in each.eval_metrics for each in metrics.points)
        assert any(each.tokens_per_second for each in metrics.points)
        found = await client.call("ListCheckpoints", ListCheckpointsRequest(job_id=first))
        assert {each.step for each in found.checkpoints} >= {5, 10}

        registered = tmp_path / "atlas/local/sums/1/files"
        assert (registered / "adapter_model.safetensors").is_file()
        adapter = json.loads((registered / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == "scaidrive://local/tiny"
        card = (registered / "README.md").read_text()
        assert "scaidrive://local/sums.jsonl" in card
        assert "| learning_rate | " in card

        # The base of the adapter is fetched with it; two processes share the job's core.
        training = {"framework": {"distributed": {"world_size": 2}}}
        again = request(client, tiny_model, training_type="SFT", training_config=training)
        del again.training_config.hyperparameters["lora_r"]
        again.training_config.base_model.model_id = "scaiatlas://local/sums"
        second = await submit(client, again)
        job, log = await completed(client, second)
        assert job.training_config.base_model.model_id == "scaiatlas://local/sums@1"
        assert "2 processes" in log
        model = client.drive / f"local/jobs/{second}/output"
        assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
            each.name for each in model.iterdir()
        }


async def test_a_run_goes_on_whatever_interrupts_it(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    output = {"checkpoint_interval_steps": 20, "max_checkpoints": 2}
    async with running(tmp_path, **settings) as (_, client):
        submitted = request(
            client,
            tiny_model,
            training_type="SFT",
            hyperparameters=LONG,
            output_config=output,
            training_config={"max_retries": 1},
        )
        job_id = await submit(client, submitted)
        await client.until_line(job_id, "step 40 of 240")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        paused = await client.until_status(job_id, "PAUSED")
        assert paused.checkpoints[-1].step >= 40
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        await client.until_line(job_id, "step 100 of 240")
        kill(job_id)
        await client.until(job_id, lambda job: job.run_count == 3)
        await client.until_line(job_id, "step 150 of 240")
    async with running(tmp_path, **settings) as (_, client):
        job, log = await completed(client, job_id)
        assert job.progress.step == 240
        assert log.count(" begins on local, from checkpoint ") == 3
        assert "step 1 of 240" not in log.partition("Run 2 begins")[2]
        assert len(job.checkpoints) == 2


@pytest.mark.slow
async def test_the_weights_are_those_of_a_run_that_nothing_interrupted(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    def weights(client: Client, job_id: str) -> str:
        model = client.drive / f"local/jobs/{job_id}/output/model.safetensors"
        return hashlib.sha256(model.read_bytes()).hexdigest()

    async with running(tmp_path, **settings) as (_, client):
        submitted = request(
            client,
            tiny_model,
            training_type="SFT",
            hyperparameters=LONG,
            output_config={"checkpoint_interval_steps": 20},
            training_config={"max_retries": 1},
        )
        whole = await submit(client, submitted)
        await completed(client, whole)
        job_id = await submit(client, submitted)
        await client.until_line(job_id, "step 60 of 240")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        await client.until_status(job_id, "PAUSED")
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
        await client.until_line(job_id, "step 150 of 240")
        kill(job_id)
        await completed(client, job_id)
        assert weights(client, job_id) == weights(client, whole)


async def test_what_fails_by_its_data_says_why_and_is_not_retried_by_itself(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    async with running(tmp_path, **settings) as (_, client):
        submitted = request(client, tiny_model, training_config={"max_retries": 3})
        client.write("sums.jsonl", '{"question": "1 + 1", "answer": "2"}\n' * 8)
        job_id = await submit(client, submitted)
        job = await client.end(job_id)
        log = [entry.message for entry in await client.log(job_id)]
        assert status_of(job) == "FAILED"
        assert job.run_count == 1
        (reason,) = [line for line in log if "it has the columns question, answer" in line]
        assert "field_mapping" in reason
        sums.write(client.drive / "local/sums.jsonl", sums.messages())
        child = await client.call("RetryJob", RetryJobRequest(job_id=job_id))
        await completed(client, child.job_id)


def kill(job_id: str) -> None:
    """End the processes of a job's run, as the kernel does when memory is short."""
    found = 0
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        try:
            command = (each / "cmdline").read_bytes()
            environment = (each / "environ").read_bytes()
        except OSError:
            continue
        if b"train_model.py" in command and f"SCAIMIND_JOB_ID={job_id}".encode() in environment:
            os.kill(int(each.name), signal.SIGKILL)
            found += 1
    assert found
