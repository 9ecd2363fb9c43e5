"""Data sources, good and broken."""

import bz2
import gzip
import io
import json
import lzma
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from app.coordinator import formats, json_elements
from app.coordinator.access import Access
from app.coordinator.drive import Drive
from app.coordinator.formats import format_of
from app.coordinator.validation import Finding, examine

GOOD = b'{"text": "a"}\n\n{"text": "b"}\n'


def parquet_bytes(records: int) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": [str(n) for n in range(records)]}), out)
    return out.getvalue()


def zstd_bytes(content: bytes) -> bytes:
    compressed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return compressed


def look(
    root: Path,
    name: str,
    content: bytes | None = None,
    *,
    columns: tuple[str, ...] = (),
    format_name: str = "",
    **drive: Any,
) -> Finding:
    if content is not None:
        (root / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "t" / name).write_bytes(content)
    return examine(
        Drive(root, **drive),
        Access("t"),
        url=name if name.startswith("/") else f"scaidrive://t/{name}",
        format_name=format_name,
        columns=columns,
    )


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("a.jsonl", GOOD, 2),
        ("a.ndjson", GOOD, 2),
        ("a.jsonl", GOOD.rstrip(), 2),
        ("a.jsonl", b"\xef\xbb\xbf" + GOOD, 2),
        ("a.jsonl.gz", gzip.compress(GOOD), 2),
        ("a.jsonl.bz2", bz2.compress(GOOD), 2),
        ("a.jsonl.xz", lzma.compress(GOOD), 2),
        ("a.jsonl.zst", zstd_bytes(GOOD), 2),
        ("a.json", b'[{"text": 1}, {"text": 2}, {"text": 3}]', 3),
        ("a.json", b'\xef\xbb\xbf [ {"text": 1} ] \n', 1),
        ("a.json.gz", gzip.compress(b'[{"text": {"deep": [1, {"er": "]"}]}}]'), 1),
        ("a.csv", b'text,n\r\n"a, ""b""\nc",1\r\nd,2\r\n', 2),
        ("a.csv.gz", gzip.compress(b"text\na\n"), 1),
        ("a.parquet", parquet_bytes(10_000), 10_000),
    ],
)
def test_good_sources(tmp_path: Path, name: str, content: bytes, records: int) -> None:
    finding = look(tmp_path, name, content, columns=("text",))
    assert finding == Finding(
        accessible=True, size_bytes=len(content), record_count=records, format=format_of(name)
    )


@pytest.mark.parametrize(
    ("name", "content", "problem", "good"),
    [
        ("a.jsonl", b"", "no records", 0),
        ("a.jsonl", GOOD + b'{"text": \n', "line 4: it is not JSON", 2),
        ("a.jsonl", GOOD + b"[1]\n", "line 4: it is not a JSON object", 2),
        ("a.jsonl", GOOD + b'{"text": "\xff"}\n', "line 4: byte 11 is not UTF-8", 2),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "line 1: it is UTF-16", 0),
        ("a.jsonl", '{"text": "ä"}\n'.encode("latin-1"), "line 1: byte 11 is not UTF-8", 0),
        ("a.jsonl", GOOD + b'{"other": 1}\n', "record 3 has no 'text'", 2),
        ("a.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], "cannot be unpacked", None),
        ("a.jsonl.gz", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.bz2", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.xz", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.zst", GOOD, "cannot be unpacked", 0),
        ("a.json", b'[{"text": 1},\n{"text": }]', "line 2: it is not JSON", 1),
        ("a.json", b'[{"text": 1}', "line 1: it is not JSON (',' or ']'", 1),
        ("a.json", b'[{"text": 1}] x', "something behind the end", 1),
        ("a.json", b'[{"text": NaN}]', "NaN is not JSON", 0),
        ("a.json", b'[{"text": ' + b"[" * 100_000, "nested too deeply", 0),
        ("a.json", b'[{"text": 1},\n{"text": "\xff"}]', "not UTF-8", None),
        ("a.json", b'{"text": 1}', "not a JSON array", 0),
        ("a.json", b"", "not a JSON array", 0),
        ("a.json", b"[1]", "record 1: it is not a JSON object", 0),
        ("a.json", b"[]", "no records", 0),
        ("a.csv", b"text,n\na,1\nb\n", "line 3: it has 1 fields, not 2", 1),
        ("a.csv", b"text,text\n", "same name", 0),
        ("a.csv", b"other\n1\n", "has no 'text'", 0),
        ("a.csv", b"text\n\xff\n", "not UTF-8", None),
        ("a.csv", b'text\n"a\n', "not CSV", 0),
        ("a.csv", "text\na\n".encode("utf-16"), "UTF-16", 0),
        ("a.bin", b"x", "format of", None),
        ("a.parquet", b"PAR1", "not Parquet", 0),
        ("a.parquet", parquet_bytes(9)[:-20], "not Parquet", 0),
        ("a.parquet.gz", gzip.compress(parquet_bytes(9)), "unpack it", 0),
    ],
)
def test_broken_sources(
    tmp_path: Path, name: str, content: bytes, problem: str, good: int | None
) -> None:
    finding = look(tmp_path, name, content, columns=("text",))
    assert finding.accessible
    assert problem.removesuffix(" of") in finding.error_message
    assert good in (None, finding.record_count)


def test_a_long_record_is_found_at_both_sides_of_a_block(tmp_path: Path) -> None:
    """A JSON array is read in pieces: records longer than one, and numbers at its very end."""
    long = [{"text": "x" * 3_000_000}, {"text": "é" * 1_500_000, "n": 12345}]
    finding = look(tmp_path, "a.json", json.dumps(long * 3, ensure_ascii=False).encode())
    assert (finding.record_count, finding.error_message) == (6, "")


def test_numbers_may_be_cut_by_the_end_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_elements, "BLOCK", 1)
    finding = look(tmp_path, "a.json", b'[{"a": 12}, {"a": -1.5e3},\n{"a": true}, {"a": nul}]')
    assert finding.record_count == 3
    assert "line 2: it is not JSON" in finding.error_message


def test_a_record_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, json_elements):
        monkeypatch.setattr(module, "MAX_RECORD", 1000)
    line = json.dumps({"text": "x" * 3_000_000}).encode()
    assert "line 2 is longer than" in look(tmp_path, "a.jsonl", b"{}\n" + line).error_message
    assert "longer than 1000" in look(tmp_path, "a.json", b"[" + line).error_message


def test_sources_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "secret.jsonl").write_bytes(GOOD)
    os.symlink(tmp_path / "secret.jsonl", tmp_path / "t" / "link.jsonl")
    os.symlink("../secret.jsonl", tmp_path / "t" / "relative.jsonl")
    os.mkfifo(tmp_path / "t" / "pipe.jsonl")
    problems = {
        "missing.jsonl": "does not exist",
        "missing-*.jsonl": "patterns are not expanded",
        "link.jsonl": "leads out",
        "relative.jsonl": "leads out",
        "../secret.jsonl": "not a plain path",
        "": "not a plain path",
        "pipe.jsonl": "neither a file nor a directory",
        "/etc/passwd": "nor below a folder that this coordinator allows",
    }
    for name, problem in problems.items():
        finding = look(tmp_path, name)
        assert not finding.accessible
        assert problem in finding.error_message
        assert str(tmp_path) not in finding.error_message


def test_plain_paths_below_allowed_folders(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "beside.jsonl").write_bytes(GOOD)
    os.symlink("../beside.jsonl", tmp_path / "data" / "out.jsonl")
    allowed = [tmp_path / "data"]
    assert look(tmp_path, str(tmp_path / "data" / "a.jsonl"), allowed=allowed).record_count == 2
    for name in ("data/../beside.jsonl", "beside.jsonl", "data/out.jsonl", "database.jsonl"):
        assert not look(tmp_path, str(tmp_path / name), allowed=allowed).accessible


def test_a_directory_is_its_files(tmp_path: Path) -> None:
    for number in range(3):
        look(tmp_path, f"shards/part-{number}.jsonl.gz", gzip.compress(GOOD))
    look(tmp_path, "shards/_SUCCESS", b"")
    look(tmp_path, "shards/more/part-3.jsonl", GOOD)
    for name in ("shards", "shards/"):
        finding = look(tmp_path, name, columns=("text",))
        assert (finding.record_count, finding.format, finding.error_message) == (8, "jsonl", "")
    look(tmp_path, "shards/part-1.jsonl.gz", gzip.compress(GOOD + b"{"))
    finding = look(tmp_path, "shards")
    assert finding.record_count == 6
    assert finding.error_message.startswith("part-1.jsonl.gz: line 4: it is not JSON")
    look(tmp_path, "shards/part-9.csv", b"text\n")
    assert "several formats (csv, jsonl)" in look(tmp_path, "shards").error_message
    (tmp_path / "t" / "empty").mkdir()
    assert look(tmp_path, "empty").error_message == "the directory has no files"
    os.symlink("/etc", tmp_path / "t" / "shards" / "etc")
    assert not look(tmp_path, "shards").accessible


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_one_bad_record_among_many_in_little_memory(tmp_path: Path, name: str) -> None:
    text = "x" * 1000
    line, first, glue = {
        "a.jsonl": (json.dumps({"text": text}), "", "\n"),
        "a.json": (json.dumps({"text": text}), "[", ",\n"),
        "a.csv": (f"{text},1", "text,n\n", "\n"),
    }[name]
    content = first + glue.join([*[line] * 20_000, '"broken', line])
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / name).write_text(content)
    del content
    tracemalloc.start()
    try:
        finding = look(tmp_path, name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert finding.record_count == 20_000
    assert f"line {20_002 if name == 'a.csv' else 20_001}" in finding.error_message
    assert peak < 12_000_000
