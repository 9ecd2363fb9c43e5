"""Files of a source, filters, and forms of records: what needs no library."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from app.trainers.data.files import csv_columns, null_record, source_files
from app.trainers.data.filters import read_filter
from app.trainers.data.forms import BadRecord, Form, check_record, recognise
from app.trainers.errors import TrainingRefused
from app.trainers.job import Source


def source(path: Path, *, split: str = "", format_name: str = "") -> Source:
    return Source(str(path), path, split, format_name, (), {}, 1.0)


def make(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


FOLDER = ("train-00000-of-2.parquet", "train-00001-of-2.parquet", "data/test.parquet", "_x.json")


@pytest.mark.parametrize(
    ("split", "names", "held_back"),
    [
        ("", ["data/test.parquet", "train-00000-of-2.parquet", "train-00001-of-2.parquet"], False),
        ("train", ["train-00000-of-2.parquet", "train-00001-of-2.parquet"], False),
        ("Train[:10%]", ["train-00000-of-2.parquet", "train-00001-of-2.parquet"], False),
        ("test", ["data/test.parquet"], True),
    ],
)
def test_a_split_is_in_the_names_of_files(
    tmp_path: Path, split: str, names: list[str], held_back: bool
) -> None:
    files = source_files(source(make(tmp_path, FOLDER), split=split))
    assert [str(path.relative_to(tmp_path)) for path in files.paths] == names
    assert (files.format, files.held_back) == ("parquet", held_back)
    assert files.part == ("[:10%]" if "[" in split else "")


def test_the_same_split_has_several_names(tmp_path: Path) -> None:
    folder = make(tmp_path, ["a_dev.jsonl", "a_train.jsonl"])
    [path] = source_files(source(folder, split="validation")).paths
    assert path.name == "a_dev.jsonl"


def test_files_that_name_no_split_are_for_training(tmp_path: Path) -> None:
    folder = make(tmp_path, ["a.jsonl", "b.jsonl.gz"])
    assert len(source_files(source(folder, split="train")).paths) == 2
    # One file is whatever the job says that it is.
    assert source_files(source(folder / "a.jsonl", split="test")).held_back


@pytest.mark.parametrize(
    ("names", "split", "said"),
    [
        (["a.jsonl", "b.csv"], "", "several formats"),
        (["readme.md"], "", "has no files that end with"),
        (["train.jsonl"], "test", "its files name train"),
        (["a.jsonl"], "test", "so that all of them are train"),
        (["a.jsonl"], "train[1:2", "is no name with a part"),
        (["d/" * 20 + "a.jsonl"], "", "more than 16 folders deep"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(
    tmp_path: Path, names: list[str], split: str, said: str
) -> None:
    with pytest.raises(TrainingRefused, match=said):
        source_files(source(make(tmp_path, names), split=split))


def test_a_name_that_says_no_format_needs_one(tmp_path: Path) -> None:
    make(tmp_path, ["records"])
    with pytest.raises(TrainingRefused, match="set the source's format"):
        source_files(source(tmp_path / "records"))
    assert source_files(source(tmp_path / "records", format_name="csv")).format == "csv"


def test_the_columns_of_csv_are_in_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffname,"with, comma"\r\n1,2\r\n'.encode())
    assert csv_columns(path) == ["name", "with, comma"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"text": "a"}\nnull\n', 2),
        ("null\n", 1),
        ("\ufeffnull\n", 1),
        ('{"a": 1}\r\n \t\r\n  null\r\n', 3),
        ('{"a": 1}\n' + " " * 3_000_000 + "\nnull", 3),
        (f'{{"a": "{"x" * 2_000_000}"}}\n' * 2 + "null", 3),
        ('{"text": "null"}\n{"null": 1}\n', 0),
        (json.dumps([{"a": [None, 1, None], "b": {"c": None}}], indent=1), 0),
        ('{"a":\n' + " " * 2_000_000 + "\nnull}", 0),
        ('{"a": [1,\nnull]}\nnull', 3),
        ('[null, {"text": "a"}]', 1),
        ('\ufeff [{"text": "a [\\"] b"},\n{"b": [{"c": null}]}, null]', 2),
        ("[" + json.dumps("x" * 100_000 + '"\\') + ",\n null]", 2),
        ("", 0),
        # Cut within a text.
        ('[{"text": "' + '\\"' * 500_000, 0),
    ],
)
def test_a_null_is_found_where_a_record_is_to_be(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode())
    assert null_record(path) == line


@pytest.mark.parametrize(
    ("condition", "passing", "others"),
    [
        ("en", ["en"], ["de", None, 1]),
        ("=>5", [">5"], ["6", 6]),
        ("!=en", ["de", None], ["en"]),
        ("3", [3, 3.0, "3"], [4, "3.0", True]),
        ("true", [True, "true"], [False, 1]),
        (">=0.5", [0.5, "0.7", 1], [0.4, None, "many", True]),
        ("<2", [1, "-1e9"], [2, float("nan")]),
    ],
)
def test_a_filter_keeps_what_it_says(condition: str, passing: list[Any], others: list[Any]) -> None:
    test = read_filter("column", condition)
    assert [value for value in [*passing, *others] if test(value)] == passing


def test_a_filter_that_compares_with_no_number_is_refused() -> None:
    with pytest.raises(TrainingRefused, match="write '=>abc'"):
        read_filter("column", ">abc")


ALL = (Form.MESSAGES, Form.PROMPT_COMPLETION, Form.TEXT)


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        (["messages", "id"], Form.MESSAGES),
        (["prompt", "completion", "text"], Form.PROMPT_COMPLETION),
        (["text"], Form.TEXT),
    ],
)
def test_the_form_is_that_of_the_columns(columns: list[str], form: Form) -> None:
    assert recognise(columns, ALL, where="data", wanted="SFT") is form


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["instruction", "output"], 'field_mapping to {"instruction": "prompt", "output"'),
        (["content"], 'field_mapping to {"content": "text"}'),
        (["txt"], "did you mean 'text'"),
        (["mesages"], "did you mean 'messages'"),
        (["a", "b"], "it has the columns a, b; SFT needs messages, or prompt"),
        (["prompt", "chosen", "rejected"], "are not for SFT"),
    ],
)
def test_columns_of_no_form_are_refused_with_what_to_map(columns: list[str], said: str) -> None:
    with pytest.raises(TrainingRefused, match=said):
        recognise(columns, ALL, where="data", wanted="SFT")


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("record", "form", "said"),
    [
        ({"text": None}, Form.TEXT, "text is missing"),
        ({"text": 5}, Form.TEXT, "text is a number"),
        ({"text": " "}, Form.TEXT, "text is empty"),
        ({"text": [USER]}, Form.TEXT, "text is a list"),
        ({"messages": []}, Form.MESSAGES, "messages is empty"),
        ({"messages": ["Hi"]}, Form.MESSAGES, r"messages\[0\] is a text, not a message"),
        ({"messages": [{"role": "user"}]}, Form.MESSAGES, r"\[0\].content is missing"),
        ({"messages": [{"role": "x", "content": ""}]}, Form.MESSAGES, "role is 'x'"),
        (
            {"prompt": "Hi", "completion": [USER]},
            Form.PROMPT_COMPLETION,
            "have to be all texts or all messages",
        ),
    ],
)
def test_a_record_that_is_wrong_is_described(record: Any, form: Form, said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        check_record(record, form)


def test_good_records_pass() -> None:
    check_record({"text": "Hi"}, Form.TEXT)
    check_record({"messages": [USER, {"role": "assistant", "content": "Yes"}]}, Form.MESSAGES)
    check_record({"prompt": [USER], "completion": [USER]}, Form.PROMPT_COMPLETION)
    tool: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [{}]}
    check_record({"messages": [USER, tool]}, Form.MESSAGES)
