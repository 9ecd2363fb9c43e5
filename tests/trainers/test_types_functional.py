"""Each supervised training type learns, and leaves a checkpoint and a model that can be used."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.local.example import tiny_model as example
from tests.trainers import exports, sums
from tests.trainers.training import Result, Runner, job_config

STEPS = 40
#: Of the loss on records that were held back: a run of the same length that learns nothing
#: changes it by nothing, or by the little that a step of no size rounds to.
MARGIN = 0.5

TYPES = ("CONTINUED_PRETRAIN", "FULL_FINETUNE", "SFT", "LORA", "QLORA")


def config(training_type: str, model: Path, data: Path, **hyperparameters: object) -> Any:
    pretraining = training_type == "CONTINUED_PRETRAIN"
    return job_config(
        training_type,
        model=model,
        data=data / ("texts.jsonl" if pretraining else "messages.jsonl"),
        hyperparameters={
            "max_steps": STEPS,
            "learning_rate": "3e-3" if "LORA" not in training_type else "2e-2",
            "lr_scheduler_type": "constant",
            "logging_steps": 10,
            **hyperparameters,
        },
        data_config={"batch_size": 8, "max_seq_length": 64, "validation_split": 0.2, "seed": 1},
        output_config={"checkpoint_interval_steps": 20},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    sums.write(folder / "messages.jsonl", sums.messages())
    long = [text for text in example.texts() if len(text) > 100]
    sums.write(folder / "texts.jsonl", [{"text": text} for text in long[:200]])
    return folder


@pytest.fixture(scope="module")
def results(run_trainer: Runner, tiny_model: Path, data: Path) -> dict[str, Result]:
    return {name: run_trainer(config(name, tiny_model, data)) for name in TYPES}


def gained(result: Result) -> float:
    """How much lower the loss on what was held back is after the training."""
    losses = result.values("eval_loss")
    return losses[0] - losses[-1]


@pytest.mark.parametrize("name", TYPES)
def test_it_learns_what_holds_for_records_it_has_not_seen(
    results: dict[str, Result], name: str
) -> None:
    result = results[name]
    assert result.status == 0, result.log
    assert gained(result) > MARGIN
    first, *_, last = result.metrics
    assert first["step"] == 0
    assert last["step"] == last["total_steps"] == STEPS
    assert last["progress"] == 1
    assert last["remaining_seconds"] == 0
    assert min(result.values("tokens_per_second") + result.values("samples_per_second")) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_a_run_that_takes_no_steps_of_any_size_gains_nothing(
    run_trainer: Runner, tiny_model: Path, data: Path, name: str
) -> None:
    result = run_trainer(config(name, tiny_model, data, learning_rate="0"))
    assert result.status == 0, result.log
    assert abs(gained(result)) < MARGIN / 50


@pytest.mark.parametrize("name", TYPES)
def test_its_checkpoints_can_be_gone_on_from(results: dict[str, Result], name: str) -> None:
    checkpoints = results[name].checkpoints
    assert [each.name for each in checkpoints] == ["step-20", f"step-{STEPS}"]
    for each in checkpoints:
        files = {path.name for path in each.iterdir()}
        assert {"trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= files


def test_its_export_is_a_model_that_transformers_loads_and_that_answers(
    results: dict[str, Result], trainers_python: Path, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    folders = {name: str(result.output) for name, result in results.items()}
    done = subprocess.run(
        [trainers_python, "-P", exports.__file__, answer, *folders.values()],
        env={
            **{"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            "TMPDIR": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = json.loads(answer.read_text())
    assert {name: said[folder]["broken"] for name, folder in folders.items()} == dict.fromkeys(
        TYPES, 0
    )
    assert all(said[folder]["tokens"] for folder in folders.values())
    # What was trained on answers has learned how they begin.
    assert {name: said[folders[name]]["text"][:2] for name in TYPES[1:]} == dict.fromkeys(
        TYPES[1:], "It"
    )


@pytest.mark.parametrize("name", TYPES)
def test_its_card_says_what_it_was_made_of(
    results: dict[str, Result], name: str, tiny_model: Path
) -> None:
    output = results[name].output
    card = (output / "README.md").read_text()
    assert f'base_model: "{tiny_model}"' in card
    assert f"by {name} with HF_TRAINER" in card
    assert "| learning_rate | " in card
    assert "| eval_loss | " in card
    # No path of the machine that made it, and nothing that has to be unpickled.
    assert not [each for each in output.iterdir() if each.suffix in (".bin", ".pt", ".partial")]


@pytest.mark.parametrize("name", TYPES)
def test_the_log_begins_with_what_is_trained(results: dict[str, Result], name: str) -> None:
    log = results[name].log
    assert "Effective batch: 8 records a step (8 a device, 1 accumulated, 1 processes)" in log
    assert "at most 512 tokens a step" in log
    assert "Trainable parameters: " in log
    assert "Memory without activations: about " in log
    assert "First example (what stands in ⟦ ⟧ does not count for the loss): " in log
    adapter = "LORA" in name
    assert ("(100.00 %)" in log) is not adapter
