"""Frameworks spread a training over processes of this machine, and what they set up is compared."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainers.arithmetic import preferences, write
from tests.trainers.training import Result, Runner, job_config

DATA: dict[str, Any] = {"validation_split": 0.2, "seed": 3, "max_seq_length": 64, "batch_size": 8}
STEPS: dict[str, Any] = {"max_steps": 6, "save_steps": 6, "learning_rate": 1e-3, "logging_steps": 1}
#: Steps of DPO after which its loss, ln 2 at the first, has to be below this.
LEARNED = 0.5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", preferences())


def train(
    run: Runner,
    model: Path,
    data: Path,
    framework: str,
    *,
    kind: str = "DPO",
    ranks: int = 2,
    distributed: dict[str, Any] | None = None,
    config: dict[str, str] | None = None,
    **hyperparameters: Any,
) -> Result:
    asked = {"config": config or {}, "distributed": {"world_size": ranks, **(distributed or {})}}
    return run(
        job_config(
            kind,
            model=model,
            data=data,
            framework=framework,
            hyperparameters={**STEPS, **hyperparameters},
            data_config=DATA,
            training_config={"framework": asked},
        ),
        world_size=ranks,
    )


def assert_learned(result: Result) -> None:
    assert result.status == 0, result.log
    loss = result.values("loss")
    assert loss[-1] < LEARNED < loss[0]
    assert result.checkpoints[-1].name == "step-6"
    assert (result.output / "model.safetensors").is_file()


def test_deepspeed_divides_the_optimizer_among_ranks(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    result = train(run_trainer, tiny_model, pairs, "DEEPSPEED", config={"stage": "2"})
    assert_learned(result)
    parts = [path.name for path in result.checkpoints[-1].rglob("*optim_states.pt")]
    assert len(parts) == 2


def test_fsdp_divides_the_model_among_ranks_of_cpus(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    result = train(run_trainer, tiny_model, pairs, "FSDP", distributed={"strategy": "full_shard"})
    assert_learned(result)


def test_megatron_is_refused_without_gpus(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    result = train(run_trainer, tiny_model, pairs, "MEGATRON", kind="SFT", ranks=1)
    assert result.status == 2
    assert "MEGATRON needs NVIDIA GPUs, and this machine has none" in result.log
    assert "Use DEEPSPEED with stage 3 or FSDP" in result.log
    assert not result.checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("framework", "config", "ranks"),
    [
        ("HF_TRAINER", {}, 2),
        ("DEEPSPEED", {"stage": "1"}, 2),
        ("DEEPSPEED", {"stage": "2"}, 1),
        ("DEEPSPEED", {"stage": "3"}, 2),
        ("FSDP", {}, 2),
    ],
    ids=["ddp", "zero1", "zero2-alone", "zero3", "fsdp"],
)
def test_every_framework_trains_dpo(
    run_trainer: Runner,
    tiny_model: Path,
    pairs: Path,
    framework: str,
    config: dict[str, str],
    ranks: int,
    adapter: bool,
) -> None:
    given: dict[str, Any] = {"use_peft": True, "learning_rate": 1e-2} if adapter else {}
    assert_learned(
        train(run_trainer, tiny_model, pairs, framework, config=config, ranks=ranks, **given)
    )


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("framework", "config"),
    [
        ("HF_TRAINER", {}),
        ("DEEPSPEED", {"stage": "2"}),
        ("DEEPSPEED", {"stage": "3"}),
        ("FSDP", {}),
    ],
    ids=["ddp", "zero2", "zero3", "fsdp"],
)
def test_every_framework_trains_rlhf(
    run_trainer: Runner,
    tiny_model: Path,
    pairs: Path,
    framework: str,
    config: dict[str, str],
    adapter: bool,
) -> None:
    given: dict[str, Any] = {
        "num_generations": 4,
        "max_completion_length": 8,
        "beta": 0.02,
        "max_steps": 2,
    }
    given |= {"save_steps": 2, "reward_max_steps": 4, "reward_learning_rate": 1e-3}
    if adapter:
        given |= {"use_peft": True}
    result = train(run_trainer, tiny_model, pairs, framework, kind="RLHF", config=config, **given)
    assert result.status == 0, result.log
    # Each rank alike: a reward that is not the same everywhere would be no number.
    assert len(result.values("eval_reward")) >= 1
    assert (result.output / "model.safetensors").is_file()
    assert (result.output / "reward_model" / "model.safetensors").is_file()
    assert (result.checkpoints[-1] / "scaimind_step.json").is_file()
