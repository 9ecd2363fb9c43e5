"""What hyperparameters a submission may have, by what the trainers say themselves."""

import json
from typing import Any

import pytest

from app.coordinator.trainers.schema import BadSchema, Schema

PARAMETERS: dict[str, Any] = {
    "learning_rate": {"type": "float", "choices": None, "aliases": ["lr"]},
    "max_steps": {"type": "int", "choices": None, "aliases": [], "limits": [1, 1e9, -1]},
    "packing": {"type": "bool", "choices": None, "aliases": []},
    "save_steps": {"type": "int|float", "choices": None, "aliases": [], "limits": [0, 9, None]},
    "lr_scheduler_type": {"type": "str", "choices": ["linear", "cosine"], "aliases": []},
    "target_modules": {"type": "list|str", "choices": None, "aliases": ["lora_target"]},
    "betas": {"type": "list", "choices": None, "aliases": []},
    "kwargs": {"type": "object", "choices": None, "aliases": []},
}
RESERVED = {"output_dir": "the coordinator chooses it"}


def schema(**changes: Any) -> Schema:
    types = {"SFT": {"hyperparameters": PARAMETERS, "reserved": RESERVED, **changes}}
    return Schema.read(json.dumps({"version": 1, "training_types": types}).encode())


def test_what_divides_the_processes_is_the_product_of_the_sizes_that_are_given() -> None:
    size = {"type": "int", "choices": None}
    megatron = {
        "config": {"tensor": {**size, "aliases": ["tp"]}, "pipeline": {**size, "aliases": []}},
        "training_types": ["SFT"],
        "model_types": ["llama"],
        "model_parallel": ["tensor", "pipeline"],
        "needs_gpus": True,
    }
    whole = {"version": 1, "training_types": {}, "frameworks": {"MEGATRON": megatron}}
    found = Schema.read(json.dumps(whole).encode()).frameworks["MEGATRON"]
    assert found.divided_by({}) == 1
    assert found.divided_by({"tp": "2", "pipeline": " 3 "}) == 6
    assert found.divided_by({"tensor": "none", "pipeline": "0"}) == 0
    assert found.training_types == ("SFT",)
    assert Schema.read(b'{"version": 1, "training_types": {}}').frameworks == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", "1e-4"),
        ("lr", " 0.1 "),
        ("max_steps", "-1"),
        ("packing", "True"),
        ("save_steps", "0.5"),
        ("lr_scheduler_type", "cosine"),
        ("target_modules", "all-linear"),
        ("target_modules", '["q_proj"]'),
        ("betas", "0.9,0.95"),
        ("kwargs", '{"a": [1]}'),
        ("max_steps", "none"),
    ],
)
def test_what_the_trainers_read_is_accepted(name: str, value: str) -> None:
    assert list(schema().problems("SFT", {name: value})) == []


@pytest.mark.parametrize(
    ("given", "where", "problem"),
    [
        ({"learnig_rate": "1"}, "learnig_rate", "did you mean 'learning_rate'?"),
        ({"zzz": "1"}, "zzz", "'zzz' is not a hyperparameter"),
        ({"learning_rate": "fast"}, "learning_rate", "'fast' is not of type float"),
        ({"max_steps": "1.5"}, "max_steps", "'1.5' is not of type int"),
        ({"max_steps": "9" * 5000}, "max_steps", "is not of type int"),
        ({"save_steps": "x"}, "save_steps", "is not of type int or float"),
        ({"packing": "perhaps"}, "packing", "is not of type bool"),
        ({"lr": "1e400"}, "lr", "'1e400' is not of type float"),
        ({"lr": "nan"}, "lr", "'nan' is not of type float"),
        ({"max_steps": "0"}, "max_steps", "'0' must be -1 or from 1 to 1000000000"),
        ({"max_steps": "1000000000000"}, "max_steps", "must be -1 or from 1 to 1000000000"),
        ({"save_steps": "9.5"}, "save_steps", "'9.5' must be from 0 to 9"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type", "did you mean 'cosine'?"),
        ({"betas": "[1,"}, "betas", "is not of type list"),
        ({"kwargs": "[1]"}, "kwargs", "is not of type object"),
        ({"kwargs": "[" * 500}, "kwargs", "is not of type object"),
        ({"lr": "1", "learning_rate": "2"}, "learning_rate", "means the same as lr"),
        ({"output_dir": "/tmp"}, "output_dir", "cannot be set here: the coordinator chooses it"),
    ],
)
def test_what_they_would_refuse_is_told_with_the_name(
    given: dict[str, str], where: str, problem: str
) -> None:
    ((found, text),) = schema().problems("SFT", given)
    assert found == where
    assert problem in text


def test_the_first_of_very_many_problems_are_told() -> None:
    assert len(list(schema().problems("SFT", {f"x{at}": "" for at in range(1000)}))) == 20


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"Traceback",
        b"[" * 100,
        b'{"version": 2, "training_types": {}}',
        b'{"version": 1, "training_types": []}',
        b'{"version": 1, "training_types": {"SFT": {"hyperparameters": {"a": {}}}}}',
        b'{"version": 1, "training_types": {"SFT": {"hyperparameters": {"a": {"type": "complex",'
        b' "choices": null, "aliases": []}}}}}',
    ],
)
def test_anything_else_is_no_schema(raw: bytes) -> None:
    with pytest.raises(BadSchema):
        Schema.read(raw)
