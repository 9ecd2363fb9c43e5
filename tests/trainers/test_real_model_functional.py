"""DPO and RLHF of a real model: SmolLM2-135M-Instruct, from its wheel."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.local.example import smollm2
from tests.trainers import sums
from tests.trainers.training import Result, Runner, job_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(trainers_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, as transformers has it."""
    folder = tmp_path_factory.mktemp("real") / "model"
    made = subprocess.run(
        [trainers_python, "-P", smollm2.__file__, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder.parent)},
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"the wheel of SmolLM2 cannot be had: {made.stdout.strip()[-200:]}")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen questions, with a right and a useless answer each."""
    useless = [{"role": "assistant", "content": "I do not know."}]
    pairs = [
        {"prompt": [asked], "chosen": [answered], "rejected": useless}
        for asked, answered in (each["messages"] for each in sums.messages()[:12])
    ]
    return sums.write(tmp_path_factory.mktemp("data") / "pairs.jsonl", pairs)


def run(runner: Runner, kind: str, model: Path, data: Path, **hyperparameters: Any) -> Result:
    result = runner(
        job_config(
            kind,
            model=model,
            data=data,
            hyperparameters={
                "learning_rate": "1e-3",
                "lora_r": 8,
                "logging_steps": 1,
                "eval_on_start": True,
                **hyperparameters,
            },
            data_config={"batch_size": 2, "max_seq_length": 80, "validation_split": 0.34},
        )
    )
    assert result.status == 0, result.log
    assert (result.output / "model.safetensors").stat().st_size > 200_000_000
    return result


def test_dpo_prefers_the_chosen_answers(run_trainer: Runner, model: Path, data: Path) -> None:
    losses = run(run_trainer, "DPO", model, data, max_steps=4).values("eval_loss")
    assert losses[0] == pytest.approx(0.693, abs=0.01)
    assert losses[-1] < 0.3


def test_rlhf_trains_a_reward_model_and_then_the_policy(
    run_trainer: Runner, model: Path, data: Path
) -> None:
    result = run(
        run_trainer,
        "RLHF",
        model,
        data,
        max_steps=2,
        num_generations=2,
        max_completion_length=8,
        reward_max_steps=4,
        reward_learning_rate="1e-3",
    )
    assert result.values("reward_model/eval_loss")[-1] < result.values("reward_model/eval_loss")[0]
    assert len(result.values("eval_reward")) >= 2
    assert (result.output / "reward_model" / "model.safetensors").is_file()
