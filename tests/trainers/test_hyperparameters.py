"""Hyperparameters are texts, read through the dataclass of the trainer."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from app.trainers.aliases import ALIASES, RESERVED
from app.trainers.errors import TrainingRefused
from app.trainers.hyperparameters import known_hyperparameters, parse_hyperparameters


class Schedule(Enum):
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass
class Arguments:
    output_dir: str | None = None
    learning_rate: float = 5e-5
    max_steps: int = -1
    num_train_epochs: float = 3.0
    per_device_train_batch_size: int = 8
    lr_scheduler_type: Schedule | str = Schedule.LINEAR
    lr_scheduler_kwargs: dict[str, Any] | str | None = None
    warmup_steps: float = 0
    packing: bool = False
    bf16: bool | None = None
    max_length: int | None = 1024
    loss_type: Literal["nll", "dft"] = "nll"
    names: list[str] = field(default_factory=list)


@dataclass
class Adapter:
    r: int = 8
    lora_alpha: int = 8
    target_modules: list[str] | str | None = None


GROUPS = {"arguments": Arguments, "lora": Adapter}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "3e-4", 3e-4),
        ("max_steps", " 30 ", 30),
        ("num_train_epochs", "0.5", 0.5),
        ("lr_scheduler_type", "cosine", "cosine"),
        ("lr_scheduler_kwargs", '{"num_cycles": 2}', {"num_cycles": 2}),
        ("packing", "True", True),
        ("packing", "no", False),
        ("bf16", "none", None),
        ("max_length", "none", None),
        ("loss_type", "dft", "dft"),
        ("names", "a, b", ["a", "b"]),
        ("names", '["a", "b"]', ["a", "b"]),
    ],
)
def test_a_text_is_read_as_its_field_is_typed(name: str, text: str, value: Any) -> None:
    assert parse_hyperparameters({name: text}, GROUPS)["arguments"] == {name: value}


@pytest.mark.parametrize(
    ("alias", "text", "group", "name", "value"),
    [
        ("micro_batch_size", "4", "arguments", "per_device_train_batch_size", 4),
        ("num_epochs", "2", "arguments", "num_train_epochs", 2.0),
        ("lora_rank", "16", "lora", "r", 16),
        ("lora_r", "16", "lora", "r", 16),
        ("lora_target", "q_proj,v_proj", "lora", "target_modules", ["q_proj", "v_proj"]),
        ("cutoff_len", "512", "arguments", "max_length", 512),
        ("sequence_len", "512", "arguments", "max_length", 512),
        ("sample_packing", "true", "arguments", "packing", True),
        ("lr", "1e-3", "arguments", "learning_rate", 1e-3),
        ("warmup_ratio", "0.03", "arguments", "warmup_steps", 0.03),
    ],
)
def test_names_of_other_trainers_are_taken(
    alias: str, text: str, group: str, name: str, value: Any
) -> None:
    assert parse_hyperparameters({alias: text}, GROUPS)[group] == {name: value}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rat": "1"}, "did you mean 'learning_rate'"),
        ({"lora_rnk": "1"}, "did you mean 'lora_rank'"),
        ({"xyzzy": "1"}, "'xyzzy' is not known$"),
        ({"max_steps": "many"}, "'many' is no int"),
        ({"max_steps": "9" * 100_000}, "is no int"),
        ({"packing": "perhaps"}, "is no bool"),
        ({"learning_rate": "1e400"}, "'1e400' is no float"),
        ({"learning_rate": "nan"}, "'nan' is no float"),
        ({"lr": "-1"}, r"hyperparameters\.lr: '-1' must be from 0 to 1e\+38"),
        ({"max_steps": "1000000000000"}, "must be -1 or from 1 to 1000000000"),
        ({"max_steps": "0"}, "must be -1 or from 1 to 1000000000"),
        ({"num_train_epochs": "-5"}, "must be from 1e-09 to 1000000000"),
        ({"max_length": "0"}, "must be from 1 to"),
        ({"lora_rank": "0"}, "must be from 1 to"),
        # From 1 on it would be taken for steps.
        ({"warmup_ratio": "1.0"}, r"warmup_ratio: '1\.0' must be from 0 to 1"),
        ({"lr_scheduler_type": "cosin"}, "did you mean 'cosine'.*use one of linear, cosine"),
        ({"loss_type": "mse"}, "use one of nll, dft"),
        ({"lr": "1", "learning_rate": "2"}, "mean the same; keep one"),
        ({"output_dir": "/etc"}, "cannot be set here"),
        ({"push_to_hub": "true"}, "output_config.register_model"),
        ({"val_set_size": "0.1"}, "data_config.validation_split"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        parse_hyperparameters(given, GROUPS)


def test_an_alias_counts_only_where_its_target_is() -> None:
    with pytest.raises(TrainingRefused, match="'lora_rank' is not known"):
        parse_hyperparameters({"lora_rank": "8"}, {"arguments": Arguments})


def test_what_the_contract_has_fields_for_is_not_among_them() -> None:
    known = known_hyperparameters(GROUPS)
    assert "output_dir" not in known
    assert known["r"].aliases == tuple(alias for alias, name in ALIASES.items() if name == "r")
    assert known["lr_scheduler_type"].choices == ("linear", "cosine")
    assert not ALIASES.keys() & RESERVED.keys()
