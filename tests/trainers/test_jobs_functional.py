"""Jobs without a script, on a real coordinator: submitted, watched, interrupted, registered."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    FrameworkType,
    SubmitJobRequest,
    SubmitJobResponse,
    TrainingType,
)
from tests.coordinator import harness
from tests.coordinator.harness import Client, running, status_of

#: Steps that take a few seconds.
STEPS = {"max_steps": "12", "learning_rate": "1e-2", "lora_r": "8", "logging_steps": "2"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch on a busy machine takes longer than what other tests wait for."""
    monkeypatch.setattr(harness, "PATIENCE", 240.0)


@pytest.fixture
def settings(trainers_python: Path) -> dict[str, Any]:
    return {"trainers_python": trainers_python, "stop_grace": 60.0}


def question(a: int, b: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"What is {a} plus {b}?"},
            {"role": "assistant", "content": f"It is {a + b}."},
        ]
    }


def request(
    client: Client,
    model: Path,
    *,
    hyperparameters: Mapping[str, str] = STEPS,
    **changes: Any,
) -> SubmitJobRequest:
    """A fine-tuning of the tiny model, which is on the drive."""
    if not (folder := client.drive / client.tenant / "tiny").exists():
        shutil.copytree(model, folder)
    records = "".join(json.dumps(question(a, b)) + "\n" for a in range(8) for b in range(8))
    data = client.write("sums.jsonl", records)
    made = SubmitJobRequest(name="sums")
    made.training_config.training_type = TrainingType.TRAINING_TYPE_LORA
    made.training_config.framework.type = FrameworkType.FRAMEWORK_TYPE_HF_TRAINER
    made.training_config.base_model.model_id = "scaidrive://local/tiny"
    made.training_config.hyperparameters.update(hyperparameters)
    made.data_config.sources.add(path=data)
    made.data_config.batch_size = 4
    made.data_config.max_seq_length = 64
    made.resource_config.cpu_count = 1
    for name, value in changes.items():
        made.MergeFrom(SubmitJobRequest(**{name: value}))
    return made


async def test_a_lora_is_trained_and_registered(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any]
) -> None:
    async with running(tmp_path, **settings) as (_, client):
        output = {"register_model": True, "model_name": "sums", "checkpoint_interval_steps": 5}
        answer: SubmitJobResponse = await client.call(
            "SubmitJob", request(client, tiny_model, output_config=output)
        )
        job = await client.end(answer.job_id)
        lines = [entry.message for entry in await client.log(answer.job_id)]
        assert status_of(job) == "COMPLETED", "\n".join(lines)
