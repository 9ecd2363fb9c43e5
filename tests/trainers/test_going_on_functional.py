"""Runs of preferences and of ranks go on from a checkpoint as if nothing had been."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.arithmetic import preferences, write
from tests.trainers.training import Result, Runner, job_config

DATA: dict[str, Any] = {"validation_split": 0.2, "seed": 3, "max_seq_length": 64, "batch_size": 8}
STEPS: dict[str, Any] = {"max_steps": 6, "save_steps": 3, "learning_rate": 1e-3, "logging_steps": 1}
ANSWERS: dict[str, Any] = {"num_generations": 4, "max_completion_length": 8}
REWARD: dict[str, Any] = {"reward_max_steps": 6, "reward_learning_rate": 1e-3}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", preferences())


def digest(result: Result) -> str:
    assert result.status == 0, result.log
    return hashlib.sha256((result.output / "model.safetensors").read_bytes()).hexdigest()


def job(
    model: Path,
    data: Path,
    *,
    kind: str = "DPO",
    framework: str = "HF_TRAINER",
    config: dict[str, str] | None = None,
    batch: int = 8,
    **hyperparameters: Any,
) -> dict[str, Any]:
    return job_config(
        kind,
        model=model,
        data=data,
        framework=framework,
        hyperparameters={**STEPS, **hyperparameters},
        data_config={**DATA, "batch_size": batch},
        training_config={"framework": {"config": config or {}}},
    )


def step(result: Result, name: str) -> Path:
    return next(path for path in result.checkpoints if path.name == name)


@pytest.mark.parametrize(
    ("asked", "ranks"),
    [
        ({}, 1),
        ({"use_peft": True}, 1),
        ({"kind": "RLHF", **ANSWERS, **REWARD}, 1),
        ({"kind": "RLHF", "algorithm": "rloo", **ANSWERS, **REWARD}, 1),
        ({}, 2),
        ({"kind": "RLHF", **ANSWERS, **REWARD}, 2),
        ({"framework": "DEEPSPEED", "config": {"stage": "2"}}, 2),
        ({"framework": "DEEPSPEED", "config": {"stage": "3"}}, 2),
        ({"framework": "FSDP"}, 2),
    ],
    ids=["dpo", "dpo-lora", "grpo", "rloo", "ddp", "ddp-grpo", "zero2", "zero3", "fsdp"],
)
def test_a_resumed_run_ends_with_the_same_bits(
    run_trainer: Runner, tiny_model: Path, pairs: Path, asked: dict[str, Any], ranks: int
) -> None:
    config = job(tiny_model, pairs, **asked)
    whole = run_trainer(config, world_size=ranks)
    again = run_trainer(config, world_size=ranks, resume_from=step(whole, "step-3"))
    assert digest(again) == digest(whole)
    assert [entry["step"] for entry in again.metrics if "loss" in entry] == [4, 5, 6]


def test_a_run_that_is_asked_to_leave_goes_on(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    config = job(tiny_model, pairs, kind="RLHF", max_steps=12, **ANSWERS, **REWARD)
    whole = run_trainer(config)
    stopped = run_trainer(config, stop_at="step 1 of 12: loss")
    assert stopped.status == 0, stopped.log
    assert not (stopped.output / "model.safetensors").exists()
    newest = max(stopped.checkpoints, key=lambda path: path.stat().st_mtime_ns)
    assert digest(run_trainer(config, folder=stopped.folder, resume_from=newest)) == digest(whole)


def test_the_training_of_a_reward_model_goes_on(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    config = job(tiny_model, pairs, kind="RLHF", **ANSWERS, **REWARD)
    whole = run_trainer(config)
    kept = step(whole, "reward_model-step-3")
    again = run_trainer(config, resume_from=kept)
    assert digest(again) == digest(whole)
    steps = [each["step"] for each in again.metrics if "reward_model/loss" in each]
    assert steps == [4, 5, 6]


@pytest.mark.parametrize(
    ("asked", "ranks", "others"),
    [
        ({}, 2, 1),
        ({}, 1, 2),
        ({"framework": "DEEPSPEED", "config": {"stage": "2"}}, 2, 1),
        ({"framework": "DEEPSPEED", "config": {"stage": "3"}}, 2, 1),
        ({"framework": "DEEPSPEED", "config": {"stage": "1"}}, 1, 2),
        ({"framework": "FSDP"}, 2, 4),
        ({"kind": "RLHF", **ANSWERS, **REWARD}, 2, 1),
    ],
    ids=["ddp-fewer", "ddp-more", "zero2", "zero3", "zero1-more", "fsdp-more", "grpo"],
)
def test_another_number_of_ranks_goes_on_where_the_run_was(
    run_trainer: Runner,
    tiny_model: Path,
    pairs: Path,
    asked: dict[str, Any],
    ranks: int,
    others: int,
) -> None:
    if "kind" not in asked:
        # Three steps see all 72 records once, with either number of ranks.
        asked = {**asked, "batch": 6}
    config = job(tiny_model, pairs, gradient_accumulation_steps=2, **asked)
    whole = run_trainer(config, world_size=ranks)
    again = run_trainer(config, world_size=others, resume_from=step(whole, "step-3"))
    assert again.status == 0, again.log
    assert f"The checkpoint is of {ranks} process(es)" in again.log
    steps = [entry["step"] for entry in again.metrics if "loss" in entry]
    assert steps == [4, 5, 6]
    if asked.get("kind") == "RLHF":
        # What is sampled differs with the ranks; the loss of such a step is about 0.
        return
    for one, other in zip(whole.values("loss")[-3:], again.values("loss"), strict=True):
        assert other == pytest.approx(one, rel=0.02)
