"""A run that is asked to leave at an awkward moment leaves with status 0 and loses nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainers import sums
from tests.trainers.training import Result, Runner, job_config

STEPS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums.write(tmp_path_factory.mktemp("data") / "sums.jsonl", sums.messages())


def config(model: Path, data: Path, **hyperparameters: object) -> Any:
    return job_config(
        "SFT",
        model=model,
        data=data,
        hyperparameters={
            "max_steps": STEPS,
            "learning_rate": "1e-3",
            "logging_steps": 10,
            # Long evaluations, one record at a time.
            "per_device_eval_batch_size": 1,
            "eval_steps": 10,
            "eval_on_start": False,
            **hyperparameters,
        },
        data_config={"batch_size": 4, "max_seq_length": 64, "validation_split": 0.9, "seed": 3},
        output_config={"checkpoint_interval_steps": STEPS},
    )


def weights(result: Result) -> str:
    assert result.status == 0, result.log
    return hashlib.sha256((result.output / "model.safetensors").read_bytes()).hexdigest()


def test_before_its_first_step_it_leaves_at_once(
    run_trainer: Runner, tiny_model: Path, data: Path
) -> None:
    result = run_trainer(config(tiny_model, data), stop_at="Data: ")
    assert result.status == 0, result.log
    assert result.log.rstrip().endswith("Asked to leave; there is nothing new to save.")
    assert result.checkpoints == []


@pytest.mark.slow
def test_in_an_evaluation_it_saves_the_step_and_leaves(
    run_trainer: Runner, tiny_model: Path, data: Path
) -> None:
    asked = config(tiny_model, data)
    whole = run_trainer(asked)
    first = run_trainer(asked, stop_at="step 10 of")
    assert first.status == 0, first.log
    assert "Asked to leave; step 10 is saved." in first.log
    assert first.values("eval_loss") == []
    [checkpoint] = first.checkpoints
    again = run_trainer(asked, folder=first.folder, resume_from=checkpoint)
    assert weights(again) == weights(whole)


@pytest.mark.slow
def test_behind_its_last_step_it_exports_when_it_goes_on(
    run_trainer: Runner, tiny_model: Path, data: Path
) -> None:
    """Its evaluation at the end is left; the last checkpoint is there, and is not trained again."""
    asked = config(tiny_model, data, eval_strategy="no")
    whole = run_trainer(asked)
    first = run_trainer(asked, stop_at=f"Checkpoint step-{STEPS} is complete.")
    assert first.status == 0, first.log
    assert not (first.output / "model.safetensors").exists()
    again = run_trainer(asked, folder=first.folder, resume_from=first.checkpoints[-1])
    assert weights(again) == weights(whole)
    assert "| loss | " in (again.output / "README.md").read_text()


@pytest.mark.slow
def test_an_adapter_on_its_base_is_what_training_begins_with(
    run_trainer: Runner, tiny_model: Path, data: Path
) -> None:
    def lora(model: dict[str, Any], **output: str) -> Any:
        return job_config(
            "LORA",
            model=tiny_model,
            data=data,
            hyperparameters={"max_steps": STEPS, "lr": "2e-2", "logging_steps": 10},
            training_config={"base_model": model},
            data_config={"batch_size": 8, "max_seq_length": 64, "validation_split": 0.2},
            output_config=output,
        )

    first = run_trainer(lora({}, export_format="adapter"))
    assert first.status == 0, first.log
    adapted = {
        "local_path": str(first.output),
        "adapter_base_local_paths": [str(tiny_model)],
        "model_id": "scaidrive://local/first",
    }
    second = run_trainer(lora(adapted, export_format="adapter"))
    assert second.status == 0, second.log
    # It begins where the first one ended.
    assert second.values("eval_loss")[0] == pytest.approx(first.values("eval_loss")[-1], rel=1e-3)
    assert second.values("eval_loss")[-1] < second.values("eval_loss")[0]
    # An adapter on an adapter: both are merged into what is exported.
    bases = [str(first.output), str(tiny_model)]
    chain = {"local_path": str(second.output), "adapter_base_local_paths": bases}
    third = run_trainer(lora(chain))
    assert third.status == 0, third.log
    assert third.values("eval_loss")[0] == pytest.approx(second.values("eval_loss")[-1], rel=1e-3)
    whole = run_trainer(lora({"local_path": str(third.output)}))
    assert whole.status == 0, whole.log
    assert whole.values("eval_loss")[0] == pytest.approx(third.values("eval_loss")[-1], rel=1e-3)
    # And without its base it is refused.
    config_file = first.output / "adapter_config.json"
    named = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**named, "base_model_name_or_path": "scaiatlas://t/x"}))
    refused = run_trainer(lora({"local_path": str(first.output)}))
    assert refused.status == 2
    assert "a LoRA adapter on 'scaiatlas://t/x', which was not fetched" in refused.log
