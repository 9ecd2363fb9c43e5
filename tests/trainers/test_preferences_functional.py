"""DPO and RLHF learn: held-back answers are told apart, and held-back prompts answered better."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.trainers import talking_model as script
from tests.trainers.arithmetic import conversations, preferences, write
from tests.trainers.training import Result, Runner, job_config

#: Held back: 18 of 90 records.
DATA = {"validation_split": 0.2, "seed": 3, "max_seq_length": 64, "batch_size": 16}
REWARD = {"reward_max_steps": 10, "reward_learning_rate": 1e-3}
POLICY = {
    "max_steps": 12,
    "learning_rate": 3e-4,
    "num_generations": 4,
    "max_completion_length": 8,
    "logging_steps": 2,
    "eval_on_start": True,
}
#: How much higher the mean reward of held-back prompts has to be: sampling alone changes it by
#: less than a fifth of that.
GAIN = 0.4


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", preferences())


@pytest.fixture(scope="module")
def talking_model(
    trainers_python: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model that answers one time rightly and another evasively."""
    folder = tmp_path_factory.mktemp("talking")
    data = write(folder / "conversations.jsonl", conversations())
    model = folder / "model"
    subprocess.run(
        [trainers_python, "-P", script.__file__, tiny_model, data, model],
        check=True,
        capture_output=True,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
    )
    return model


@pytest.fixture(scope="module")
def rewarded(run_trainer: Runner, talking_model: Path, pairs: Path) -> Result:
    """A run that trains a reward model, and then by it a policy."""
    return run_trainer(
        job_config(
            "RLHF",
            model=talking_model,
            data=pairs,
            hyperparameters={**POLICY, **REWARD},
            data_config=DATA,
        )
    )


def dpo(run: Runner, model: Path, pairs: Path, **hyperparameters: Any) -> Result:
    given = {"max_steps": 8, "learning_rate": 1e-3, "eval_on_start": True, **hyperparameters}
    return run(job_config("DPO", model=model, data=pairs, hyperparameters=given, data_config=DATA))


def test_dpo_tells_held_back_answers_apart(
    run_trainer: Runner, tiny_model: Path, pairs: Path
) -> None:
    result = dpo(run_trainer, tiny_model, pairs)
    assert result.status == 0, result.log
    before, *_, after = result.values("eval_rewards/accuracies")
    assert before <= 0.6
    assert after >= 0.9
    assert result.values("eval_rewards/margins")[-1] > 1
    assert [each.name for each in result.checkpoints] == ["step-8"]
    assert (result.output / "model.safetensors").is_file()


def test_rlhf_trains_a_reward_model_and_a_policy_by_it(rewarded: Result) -> None:
    assert rewarded.status == 0, rewarded.log
    before, *_, after = rewarded.values("reward_model/eval_accuracy")
    assert before <= 0.6
    assert after >= 0.9
    before, *_, after = rewarded.values("eval_reward")
    assert after > before + GAIN
    assert (rewarded.output / "reward_model" / "model.safetensors").is_file()
    assert (rewarded.output / "model.safetensors").is_file()


def test_rloo_is_rewarded_by_a_model_that_is_there_and_trains_an_adapter(
    run_trainer: Runner, rewarded: Result, talking_model: Path, pairs: Path
) -> None:
    result = run_trainer(
        job_config(
            "RLHF",
            model=talking_model,
            data=pairs,
            hyperparameters={
                **POLICY,
                "algorithm": "rloo",
                "reward_model": rewarded.output / "reward_model",
                "learning_rate": 5e-3,
                "lora_r": 8,
            },
            data_config=DATA,
            output_config={"export_format": "adapter"},
            training_config={"base_model": {"model_id": "scaidrive://local/talking"}},
        )
    )
    assert result.status == 0, result.log
    for folder in (result.output, result.checkpoints[-1]):
        named = json.loads((folder / "adapter_config.json").read_text())
        assert named["base_model_name_or_path"] == "scaidrive://local/talking"
    before, *_, after = result.values("eval_reward")
    assert after > before + GAIN
    assert not result.values("reward_model/loss")
    assert (result.output / "adapter_model.safetensors").is_file()
    assert not (result.output / "reward_model").exists()


@pytest.mark.slow
def test_runs_that_change_nothing_learn_nothing(
    run_trainer: Runner, tiny_model: Path, talking_model: Path, pairs: Path, rewarded: Result
) -> None:
    result = dpo(run_trainer, tiny_model, pairs, learning_rate=0)
    assert result.values("eval_rewards/accuracies")[-1] <= 0.6
    for algorithm in ("grpo", "rloo"):
        result = run_trainer(
            job_config(
                "RLHF",
                model=talking_model,
                data=pairs,
                hyperparameters={
                    **POLICY,
                    "algorithm": algorithm,
                    "learning_rate": 0,
                    "reward_model": rewarded.output / "reward_model",
                },
                data_config=DATA,
            )
        )
        before, *_, after = result.values("eval_reward")
        assert abs(after - before) < GAIN / 2
    result = run_trainer(
        job_config(
            "RLHF",
            model=talking_model,
            data=pairs,
            hyperparameters={**POLICY, "max_steps": 1, **REWARD, "reward_learning_rate": 0},
            data_config=DATA,
        )
    )
    assert result.values("reward_model/eval_accuracy")[-1] <= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("rlhf", [False, True], ids=["dpo", "rlhf"])
def test_an_adapter_learns_as_well(
    run_trainer: Runner, tiny_model: Path, talking_model: Path, pairs: Path, rlhf: bool
) -> None:
    if not rlhf:
        result = dpo(run_trainer, tiny_model, pairs, learning_rate=1e-2, use_peft=True)
        assert result.values("eval_rewards/accuracies")[-1] >= 0.9
    else:
        given = {**POLICY, **REWARD, "use_peft": True, "learning_rate": 5e-3}
        given |= {"reward_learning_rate": 1e-2, "beta": 0.01}
        result = run_trainer(
            job_config(
                "RLHF", model=talking_model, data=pairs, hyperparameters=given, data_config=DATA
            )
        )
        before, *_, after = result.values("eval_reward")
        assert after > before + GAIN
        reward = result.output / "reward_model"
        assert not (reward / "adapter_config.json").exists()
    assert result.status == 0, result.log
    assert (result.output / "model.safetensors").is_file()
