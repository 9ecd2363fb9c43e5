"""Where the base model is, and what may be set of it: what needs no library."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.trainers.errors import TrainingRefused
from app.trainers.job import BaseModel
from app.trainers.model.parts import model_parts


def model(path: Path | None, **changes: Any) -> BaseModel:
    values: dict[str, Any] = {
        "model_id": "scaiatlas://t/tiny",
        "local_path": path,
        "adapter_base_paths": (),
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


def whole(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_model_that_is_no_adapter_is_where_it_is(tmp_path: Path) -> None:
    folder = whole(tmp_path / "model")
    assert model_parts(model(folder)) == (str(folder), None, [])
    assert model_parts(model(None, revision="v1")) == ("scaiatlas://t/tiny", "v1", [])


def test_the_base_that_was_fetched_is_taken_whatever_the_adapter_calls_it(tmp_path: Path) -> None:
    folder, base = adapter(tmp_path, "/home/somebody/model"), whole(tmp_path / "base")
    assert model_parts(model(folder, adapter_base_paths=(base,))) == (str(base), None, [folder])


def test_adapters_on_adapters_are_merged_from_the_innermost(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    adapter(outer, "scaiatlas://t/inner")
    adapter(inner, "owner/name")
    base = whole(tmp_path / "base")
    for given, place in (((inner, base), str(base)), ((inner,), "owner/name")):
        found = model_parts(model(outer, adapter_base_paths=given))
        assert found == (place, None, [inner, outer])
    with pytest.raises(TrainingRefused, match=r"its base has no config\.json"):
        model_parts(model(outer, adapter_base_paths=(inner, tmp_path)))


def test_a_hubs_name_is_looked_up(tmp_path: Path) -> None:
    folder = adapter(tmp_path, "owner/name")
    assert model_parts(model(folder)) == ("owner/name", None, [folder])


@pytest.mark.parametrize("base", ["scaiatlas://t/x", "/home/x", "../x", "", None])
def test_a_base_that_was_not_fetched_is_refused(tmp_path: Path, base: object) -> None:
    with pytest.raises(TrainingRefused, match="train on a merged model"):
        model_parts(model(adapter(tmp_path, base)))


@pytest.mark.parametrize("text", ["", "[", "7", "[" * 100_000])
def test_an_adapter_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(TrainingRefused, match="cannot be read"):
        model_parts(model(tmp_path))
