"""MEGATRON: what a job asks for, which models there are, and weights in both layouts.

Nothing here needs the package megatron-core: the names and shapes of its state dicts are data.
"""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.trainers.errors import TrainingRefused
from app.trainers.frameworks import framework
from app.trainers.frameworks.megatron import machine
from app.trainers.frameworks.megatron.settings import (
    Layout,
    check_fits,
    layout,
    megatron_settings,
)
from app.trainers.frameworks.megatron.shape import ModelShape, model_shape
from app.trainers.job import Job
from tests.trainers import megatron_weights
from tests.trainers.environment import ROOT
from tests.trainers.test_frameworks import job

FOLDER = Path(__file__).parent


@pytest.mark.parametrize(
    ("asked", "ranks", "found"),
    [
        ({}, 1, Layout(1, 1, 1)),
        ({}, 4, Layout(1, 1, 4)),
        ({"config": {"tensor_model_parallel_size": "2"}}, 8, Layout(2, 1, 4)),
        (
            {"config": {"tp": "2", "pipeline_model_parallel_size": "4"}},
            8,
            Layout(2, 4, 1),
        ),
        (
            {"distributed": {"strategy": "megatron", "config": {"pipeline_parallel": "2"}}},
            2,
            Layout(1, 2, 1),
        ),
    ],
)
def test_ranks_are_divided_as_the_job_says(
    tmp_path: Path, asked: dict[str, Any], ranks: int, found: Layout
) -> None:
    asking = job(tmp_path, ranks=ranks, **asked)
    assert layout(megatron_settings(asking), asking.world_size) == found
    assert framework("MEGATRON").replicas(asking) == found.data


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"config": {"tensor_model_paralel_size": "2"}},
            "did you mean 'tensor_model_parallel_size'",
        ),
        ({"config": {"tensor_model_parallel_size": "two"}}, "'two' is no int"),
        ({"config": {"tensor_model_parallel_size": "0"}}, "must be from 1 to"),
        ({"config": {"tensor_model_parallel_size": "-2"}}, "must be from 1 to"),
        (
            {"config": {"tensor_model_parallel_size": "3"}},
            r"3 times pipeline_model_parallel_size 1 is 3, which does not divide the 4 processes",
        ),
        (
            {"config": {"tp": "4", "pp": "2"}},
            r"4 times pipeline_model_parallel_size 2 is 8, which does not divide the 4 processes",
        ),
        ({"config": {"tp": "2", "tensor_model_parallel_size": "4"}}, "is set twice"),
        (
            {"config": {"tp": "2"}, "distributed": {"config": {"tp": "4"}}},
            "tensor_model_parallel_size differ",
        ),
        ({"config": {"sequence_parallel": "true"}}, "needs tensor_model_parallel_size 2 or more"),
        ({"distributed": {"strategy": "zero3"}}, "'zero3' is nothing that MEGATRON does"),
    ],
)
def test_what_megatron_cannot_do_is_refused(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    asking = job(tmp_path, ranks=4, **asked)
    with pytest.raises(TrainingRefused, match=said):
        layout(megatron_settings(asking), asking.world_size)


@pytest.mark.parametrize("kind", ["LORA", "QLORA", "DPO", "RLHF"])
def test_other_training_types_are_refused_before_the_model_or_the_machine_is_looked_at(
    tmp_path: Path, kind: str
) -> None:
    asked = job(tmp_path, ranks=4)
    other = Job(
        **{name: getattr(asked, name) for name in Job.__dataclass_fields__}
        | {"training_type": kind}
    )
    with pytest.raises(TrainingRefused, match=f"does not do {kind}, only CONTINUED_PRETRAIN"):
        framework("MEGATRON").arguments(other)


def config(kind: str = "llama", **values: Any) -> SimpleNamespace:
    """The configuration of a model, as transformers has it."""
    sizes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 301,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }
    return SimpleNamespace(**{"model_type": kind, **sizes, **values})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (config("gemma3_text"), "'gemma3_text': only llama, mistral, qwen2, qwen3"),
        (config("mixtral"), "'mixtral': only"),
        (config("deepseek_v3"), "'deepseek_v3': only"),
        (config(hidden_act="gelu"), "its activation is gelu, not silu"),
        (config(attention_bias=True), "attention_bias"),
        (config(mlp_bias=True), "mlp_bias"),
        (config(attention_dropout=0.1), "attention_dropout, which has to be 0"),
        (config(rope_parameters={"rope_type": "yarn"}), "positions are scaled by yarn"),
        (config(rope_parameters={"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (config("mistral", sliding_window=64), "sees 64 tokens .*max_seq_length is 100"),
        (
            config("qwen2", sliding_window=64, use_sliding_window=True),
            "sees 64 tokens .*max_seq_length is 100",
        ),
    ],
)
def test_a_model_that_is_not_built_as_megatrons_is_refused_by_name(
    asked: SimpleNamespace, said: str
) -> None:
    with pytest.raises(TrainingRefused, match=said):
        model_shape(asked, max_length=100)


@pytest.mark.parametrize(
    "asked",
    [
        config("mistral", sliding_window=128),
        config("qwen2", sliding_window=64, use_sliding_window=False),
        config(rope_parameters={"rope_type": "llama3"}),
        config("qwen3", head_dim=32),
    ],
)
def test_what_changes_nothing_for_the_records_is_no_obstacle(asked: SimpleNamespace) -> None:
    shape = model_shape(asked, max_length=100)
    assert shape.qk_norm is (asked.model_type == "qwen3")
    assert shape.head == getattr(asked, "head_dim", 16)


def test_code_of_a_models_own_is_refused() -> None:
    own = type("LlamaConfig", (SimpleNamespace,), {"__module__": "transformers_modules.m.model"})
    with pytest.raises(TrainingRefused, match="its code is its own"):
        model_shape(own(**vars(config())), max_length=100)


def test_without_the_package_the_command_that_adds_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for there in ((), ("megatron",)):
        monkeypatch.setattr(machine, "find_spec", lambda name, there=there: name in there or None)
        with pytest.raises(TrainingRefused, match="scripts/venv train --with-megatron"):
            machine.check_package()


def shape_of(**values: Any) -> ModelShape:
    return model_shape(config(**values), max_length=100)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (Layout(8, 1, 1), "tensor_model_parallel_size: 8 does not divide the model's 4 heads"),
        (Layout(4, 1, 1), "4 does not divide the model's 2 heads of keys and values"),
        (Layout(1, 4, 1), "pipeline_model_parallel_size: 4 does not divide the model's 2 layers"),
    ],
)
def test_ranks_that_do_not_divide_the_model_are_refused(ranks: Layout, said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        check_fits(shape_of(), ranks)


def test_weights_are_those_of_megatrons_state_dicts_and_come_back_to_the_bit(
    trainers_python: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [trainers_python, "-P", megatron_weights.__file__],
        input=(FOLDER / "megatron_names.json").read_text(),
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["cases"] == len(json.loads((FOLDER / "megatron_names.json").read_text()))
    assert said["wrong"] == []
