"""Where the base model is, and what may be set of it: what needs no library."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.trainers.errors import TrainingRefused
from app.trainers.job import BaseModel
from app.trainers.model import adapter_base


def model(path: Path | None, **changes: Any) -> BaseModel:
    values: dict[str, Any] = {
        "model_id": "scaiatlas://t/tiny",
        "local_path": path,
        "adapter_base_path": None,
        "revision": "",
        "tokenizer_id": "",
        "tokenizer_path": None,
        "dtype": "",
        "trust_remote_code": False,
        "model_kwargs": {},
    }
    return BaseModel(**{**values, **changes})


def adapter(folder: Path, base: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def test_a_model_that_is_no_adapter_has_no_base(tmp_path: Path) -> None:
    assert adapter_base(model(tmp_path)) is None
    assert adapter_base(model(None)) is None


def test_the_base_that_was_fetched_is_taken_whatever_the_adapter_calls_it(tmp_path: Path) -> None:
    folder = adapter(tmp_path, "/home/somebody/model")
    assert adapter_base(model(folder, adapter_base_path=Path("/fetched"))) == "/fetched"


def test_a_hubs_name_is_looked_up(tmp_path: Path) -> None:
    assert adapter_base(model(adapter(tmp_path, "owner/name"))) == "owner/name"


@pytest.mark.parametrize("base", ["scaiatlas://t/x", "/home/x", "../x", "", None])
def test_a_base_that_was_not_fetched_is_refused(tmp_path: Path, base: object) -> None:
    with pytest.raises(TrainingRefused, match="train on a merged model"):
        adapter_base(model(adapter(tmp_path, base)))


@pytest.mark.parametrize("text", ["", "[", "7", "[" * 100_000])
def test_an_adapter_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(TrainingRefused, match="cannot be read"):
        adapter_base(model(tmp_path))
