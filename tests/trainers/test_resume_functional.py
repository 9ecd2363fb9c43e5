"""A run that was interrupted ends with the weights of one that was not, to the bit."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.trainers import sums
from tests.trainers.training import Result, Runner, job_config

STEPS = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums.write(tmp_path_factory.mktemp("data") / "sums.jsonl", sums.messages())


def config(training_type: str, model: Path, data: Path, **hyperparameters: object) -> Any:
    return job_config(
        training_type,
        model=model,
        data=data,
        hyperparameters={
            "max_steps": STEPS,
            "learning_rate": "1e-3",
            "logging_steps": 1,
            # What is drawn at random has to go on where it was.
            **({"lora_dropout": 0.1} if training_type != "SFT" else {"neftune_noise_alpha": 5}),
            **hyperparameters,
        },
        data_config={"batch_size": 4, "max_seq_length": 64, "validation_split": 0.1, "seed": 3},
        output_config={"checkpoint_interval_steps": 10},
    )


def weights(result: Result) -> str:
    assert result.status == 0, result.log
    return hashlib.sha256((result.output / "model.safetensors").read_bytes()).hexdigest()


def interrupted(
    run: Runner, config: Any, world_size: int, *, stop_at: str = "", kill_at: str = ""
) -> Result:
    """Interrupt a run and go on from its newest checkpoint."""
    first = run(config, world_size=world_size, stop_at=stop_at, kill_at=kill_at)
    assert not (first.output / "model.safetensors").exists()
    newest = first.checkpoints[-1]
    assert 0 < int(newest.name.removeprefix("step-")) < STEPS, first.log
    return run(config, folder=first.folder, resume_from=newest, world_size=world_size)


ASKED = {"stop_at": "step 13 of"}
KILLED = {"kill_at": "step 23 of"}


@pytest.mark.parametrize(
    ("training_type", "world_size", "signals"),
    [
        pytest.param("SFT", 1, ASKED, id="sft-asked"),
        pytest.param("SFT", 1, KILLED, id="sft-killed", marks=pytest.mark.slow),
        pytest.param("LORA", 1, ASKED, id="lora-asked", marks=pytest.mark.slow),
        pytest.param("LORA", 1, KILLED, id="lora-killed", marks=pytest.mark.slow),
        pytest.param("SFT", 2, ASKED, id="ddp-asked", marks=pytest.mark.slow),
        pytest.param("SFT", 2, KILLED, id="ddp-killed", marks=pytest.mark.slow),
        pytest.param("LORA", 2, ASKED, id="ddp-lora-asked", marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_those_of_a_run_without_interruption(
    run_trainer: Runner,
    tiny_model: Path,
    data: Path,
    training_type: str,
    world_size: int,
    signals: dict[str, str],
) -> None:
    asked = config(training_type, tiny_model, data)
    whole = run_trainer(asked, world_size=world_size)
    again = interrupted(run_trainer, asked, world_size, **signals)
    assert weights(again) == weights(whole)
    # The steps go on where they were, and none is missing.
    assert again.metrics[0]["step"] > 10
    assert again.metrics[-1]["step"] == STEPS
