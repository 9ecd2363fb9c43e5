"""Trainings over nodes that share no disk: each writes its part, and goes on from the whole."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.trainers import sums
from tests.trainers.arithmetic import preferences, write
from tests.trainers.training import Runner, job_config

pytestmark = pytest.mark.slow

STEPS = 12


def config(framework: str, model: Path, data: Path, **settings: str) -> dict[str, Any]:
    return job_config(
        "SFT",
        model=model,
        data=data,
        framework=framework,
        hyperparameters={"max_steps": STEPS, "learning_rate": "1e-3", "logging_steps": 1}
        | {"neftune_noise_alpha": 5},
        data_config={"batch_size": 4, "max_seq_length": 64, "seed": 3},
        output_config={"checkpoint_interval_steps": 4},
        training_config={"framework": {"config": settings, "distributed": {"world_size": 2}}},
    )


def merged(parts: Sequence[Path], into: Path) -> dict[str, int]:
    """Lay the folders of nodes into one, as the drive does it; returns the node of each file."""
    came_from: dict[str, int] = {}
    for number, part in enumerate(parts):
        for path in sorted(part.rglob("*")):
            name = path.relative_to(part).as_posix()
            if path.is_file() and name not in came_from:
                came_from[name] = number
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, into / name)
    return came_from


@pytest.mark.parametrize(
    ("framework", "settings"),
    [
        ("HF_TRAINER", {}),
        ("DEEPSPEED", {"stage": "2"}),
        ("DEEPSPEED", {"stage": "3"}),
        ("FSDP", {}),
    ],
    ids=["ddp", "zero2", "zero3", "fsdp"],
)
def test_the_weights_are_those_of_a_run_on_one_disk(
    run_trainer: Runner, tiny_model: Path, tmp_path: Path, framework: str, settings: dict[str, str]
) -> None:
    data = sums.write(tmp_path / "sums.jsonl", sums.messages())
    asked = config(framework, tiny_model, data, **settings)
    whole = run_trainer(asked, world_size=2)
    assert whole.status == 0, whole.log
    first = [tmp_path / f"first-{number}" for number in (0, 1)]
    left = run_trainer(asked, world_size=2, disks=first, stop_at="step 6 of")
    assert left.status == 0, left.log
    names = [sorted(each.name for each in (disk / "checkpoints").glob("step-*")) for disk in first]
    assert names[0] == names[1], left.log
    name = max(names[0], key=lambda each: int(each.removeprefix("step-")))
    second = [tmp_path / f"second-{number}" for number in (0, 1)]
    for disk in second:
        parts = [each / "checkpoints" / name for each in first]
        came_from = merged(parts, disk / "resume")
        assert set(came_from.values()) == {0, 1}
    again = run_trainer(asked, world_size=2, disks=second, resume_from=second[0] / "resume")
    assert again.status == 0, again.log
    merged([disk / "output" for disk in second], tmp_path / "output")
    found, wanted = (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in (tmp_path / "output", whole.output)
    )
    assert found == wanted
    # The other nodes have no model of their own, and nothing half of one.
    assert [path for path in (second[1] / "output").rglob("*") if path.is_file()] == []


def test_the_reward_model_reaches_the_other_nodes(
    run_trainer: Runner, tiny_model: Path, tmp_path: Path
) -> None:
    pairs = write(tmp_path / "pairs.jsonl", preferences())
    disks = [tmp_path / f"node-{number}" for number in (0, 1)]
    result = run_trainer(
        job_config(
            "RLHF",
            model=tiny_model,
            data=pairs,
            hyperparameters={"num_generations": 4, "max_completion_length": 8, "max_steps": 2}
            | {"save_steps": 2, "reward_max_steps": 4, "reward_learning_rate": 1e-3},
            data_config={"max_seq_length": 64, "batch_size": 8, "seed": 3},
            training_config={"framework": {"distributed": {"world_size": 2}}},
        ),
        world_size=2,
        disks=disks,
    )
    assert result.status == 0, result.log
    assert (disks[0] / "output" / "reward_model" / "model.safetensors").is_file()
    assert (disks[1] / "checkpoints" / "step-2").is_dir()
