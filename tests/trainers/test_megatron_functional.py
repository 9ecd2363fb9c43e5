"""Megatron-core itself, on CPUs over gloo: the models that it has, and runs that learn.

These need megatron-core in the trainers' environment (`scripts/venv train --with-megatron`). What
stands in for CUDA is in megatron_on_cpu.py.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.trainers import exports, llama_like, sums
from tests.trainers.environment import ROOT
from tests.trainers.training import Result, Runner, job_config, ranks_of

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
STEPS = 12
#: Of losses: what rounding in another order changes over a run.
ROUNDING = 1e-4
LAYOUTS: dict[str, tuple[int, dict[str, str]]] = {
    "alone": (1, {}),
    "whole-optimizer": (1, {"use_distributed_optimizer": "false"}),
    "tensor": (2, {"tensor_model_parallel_size": "2"}),
    "sequence": (2, {"tensor_model_parallel_size": "2", "sequence_parallel": "true"}),
    "pipeline": (2, {"pipeline_model_parallel_size": "2"}),
    "replicas": (2, {}),
}


@pytest.fixture(scope="module")
def models(megatron_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([megatron_python, "-P", llama_like.__file__, folder], check=True)
    return folder


def converted(python: Path, model: Path, tensor: int, pipeline: int, answer: Path) -> Any:
    """What megatron_conversion.py says."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    script = FOLDER / "megatron_conversion.py"
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    processes = [
        subprocess.Popen(
            [python, "-P", script, model, str(tensor), str(pipeline), answer],
            env={**environment, **(rank or alone)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ranks_of(tensor * pipeline)
    ]
    try:
        for process in processes:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return json.loads(answer.read_text())


@pytest.mark.parametrize("kind", llama_like.KINDS)
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (1, 2)])
def test_a_converted_model_says_what_it_said_and_comes_back_to_the_bit(
    megatron_python: Path, models: Path, tmp_path: Path, kind: str, tensor: int, pipeline: int
) -> None:
    said = converted(megatron_python, models / kind, tensor, pipeline, tmp_path / "answer")
    assert said["equal"]
    if pipeline == 1:
        assert said["difference"] < 1e-6 < said["largest"]
    known = json.loads((FOLDER / "megatron_names.json").read_text())
    for case in known:
        if (case["kind"], case["tensor"], case["pipeline"]) == (kind, tensor, pipeline):
            assert case["ranks"] == said["names_and_shapes"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums.write(tmp_path_factory.mktemp("data") / "sums.jsonl", sums.messages())


def config(
    model: Path,
    data: Path,
    layout: str = "alone",
    *,
    kind: str = "SFT",
    framework: str = "MEGATRON",
    records: int = 8,
    **hyperparameters: object,
) -> Any:
    ranks, asked = LAYOUTS[layout]
    replicas = 2 if layout == "replicas" else 1
    return job_config(
        kind,
        model=model,
        data=data,
        framework=framework,
        hyperparameters={
            "max_steps": STEPS,
            "learning_rate": "3e-3",
            "lr_scheduler_type": "linear",
            "logging_steps": 1,
            **hyperparameters,
        },
        data_config={
            "batch_size": records,
            "gradient_accumulation_steps": 2 // replicas,
            "max_seq_length": 64,
            "validation_split": 0.2,
            "seed": 1,
        },
        output_config={"checkpoint_interval_steps": 6},
        training_config={"framework": {"config": asked, "distributed": {"world_size": ranks}}},
    )


Trained = Callable[[str], Result]


@pytest.fixture(scope="module")
def trained(run_megatron: Runner, tiny_model: Path, data: Path) -> Trained:
    """Returns the run of a layout, which is made once."""

    @cache
    def result(layout: str) -> Result:
        found = run_megatron(config(tiny_model, data, layout), world_size=LAYOUTS[layout][0])
        assert found.status == 0, found.log
        return found

    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_learns_and_all_learn_the_same(trained: Trained, layout: str) -> None:
    result, alone = trained(layout), trained("alone")
    losses = result.values("eval_loss")
    assert losses[0] - losses[-1] > 2
    for name in ("loss", "grad_norm", "eval_loss", "learning_rate"):
        assert result.values(name) == pytest.approx(alone.values(name), rel=ROUNDING)
    assert result.values("num_tokens") == alone.values("num_tokens")
    assert [each.name for each in result.checkpoints] == ["step-6", f"step-{STEPS}"]
    assert result.metrics[-1]["progress"] == 1


def test_a_run_leaves_no_process_behind(trained: Trained) -> None:
    folder = str(trained("tensor").folder / "work")
    assert [
        each for each in Path("/proc").glob("[0-9]*/cwd") if os.path.realpath(each) == folder
    ] == []


def test_exports_are_models_that_transformers_loads_and_that_answer(
    trained: Trained, megatron_python: Path, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    folders = [str(result.output) for result in map(trained, LAYOUTS)]
    done = subprocess.run(
        [megatron_python, "-P", exports.__file__, answer, *folders],
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
    assert [said[folder]["broken"] for folder in folders] == [0] * len(folders)
    assert all(said[folder]["tokens"] for folder in folders)


def test_it_learns_as_the_trainer_of_transformers_does(
    run_megatron: Runner, run_trainer: Runner, tiny_model: Path, tmp_path: Path
) -> None:
    # All records are in each step: the two draw them in other orders.
    few = sums.write(tmp_path / "few.jsonl", sums.messages()[:10])
    asked: dict[str, Any] = {"records": 4, "max_steps": 6, "weight_decay": 5, "warmup_steps": 2}
    ours = run_megatron(config(tiny_model, few, **asked))
    theirs = run_trainer(config(tiny_model, few, framework="HF_TRAINER", **asked))
    assert ours.status == theirs.status == 0, ours.log + theirs.log
    for name in ("loss", "eval_loss", "grad_norm", "learning_rate"):
        assert ours.values(name) == pytest.approx(theirs.values(name), rel=ROUNDING), name
    assert ours.values("num_tokens") == theirs.values("num_tokens")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CONTINUED_PRETRAIN", {}),
        ("FULL_FINETUNE", {"packing": "true"}),
        ("SFT", {"gradient_checkpointing": "true", "bf16": "true"}),
    ],
)
def test_every_type_that_it_does_learns(
    run_megatron: Runner, tiny_model: Path, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    texts = kind == "CONTINUED_PRETRAIN"
    data = sums.write(tmp_path / "data.jsonl", sums.texts() if texts else sums.messages())
    result = run_megatron(config(tiny_model, data, kind=kind, **changes))
    assert result.status == 0, result.log
    losses = result.values("loss")
    assert losses[0] - losses[-1] > 1
    assert (result.output / "model.safetensors").is_file()


def weights(result: Result) -> str:
    assert result.status == 0, result.log
    return hashlib.sha256((result.output / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("layout", "signal"), [("alone", "stop_at"), ("sequence", "stop_at"), ("replicas", "kill_at")]
)
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(
    run_megatron: Runner,
    trained: Trained,
    tiny_model: Path,
    data: Path,
    layout: str,
    signal: str,
) -> None:
    asked, ranks = config(tiny_model, data, layout), LAYOUTS[layout][0]
    at: dict[str, Any] = {signal: "step 8 of" if signal == "kill_at" else "step 4 of"}
    first = run_megatron(asked, world_size=ranks, **at)
    assert not (first.output / "model.safetensors").exists()
    newest = first.checkpoints[-1]
    again = run_megatron(asked, folder=first.folder, resume_from=newest, world_size=ranks)
    assert weights(again) == weights(trained(layout))
    steps = [each["step"] for each in again.metrics if "loss" in each]
    assert all(one + 1 == other for one, other in pairwise(steps))


@pytest.mark.parametrize(
    ("before", "after"),
    [("sequence", "pipeline"), ("pipeline", "alone"), ("alone", "replicas")],
)
def test_a_run_goes_on_with_other_ranks(
    run_megatron: Runner,
    trained: Trained,
    tiny_model: Path,
    data: Path,
    before: str,
    after: str,
) -> None:
    halfway = trained(before).checkpoints[0]
    result = run_megatron(
        config(tiny_model, data, after), resume_from=halfway, world_size=LAYOUTS[after][0]
    )
    assert result.status == 0, result.log
    whole = trained(before)
    assert result.values("loss") == pytest.approx(whole.values("loss")[6:], rel=ROUNDING)
    assert result.values("eval_loss")[-1] == pytest.approx(
        whole.values("eval_loss")[-1], rel=ROUNDING
    )


def test_a_checkpoint_of_another_framework_is_refused(
    run_megatron: Runner, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "step-4"
    foreign.mkdir()
    (foreign / "trainer_state.json").write_text("{}")
    result = run_megatron(config(tiny_model, data), resume_from=foreign)
    assert result.status == 2
    assert "another framework than MEGATRON wrote it" in result.log
