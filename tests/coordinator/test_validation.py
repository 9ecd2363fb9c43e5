"""Data sources, good and broken."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.drive import Drive
from app.coordinator.validation import Finding, examine
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest
from generated.mindcoordinator.v1.jobs_pb2 import DataSource
from tests.coordinator.harness import running

GOOD = b'{"text": "a"}\n\n{"text": "b"}\n'


def look(
    root: Path,
    name: str,
    content: bytes | None = None,
    *,
    columns: tuple[str, ...] = (),
    **more: Any,
) -> Finding:
    folder = root / "t"
    folder.mkdir(exist_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    return examine(
        Drive(root),
        tenant_id="t",
        url=f"scaidrive://t/{name}",
        format_name=more.get("format_name", ""),
        columns=columns,
    )


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("a.jsonl", GOOD, 2),
        ("a.jsonl", b"\xef\xbb\xbf" + GOOD, 2),
        ("a.jsonl.gz", gzip.compress(GOOD), 2),
        ("a.jsonl.bz2", bz2.compress(GOOD), 2),
        ("a.jsonl.xz", lzma.compress(GOOD), 2),
        ("a.json", b'[{"text": 1}, {"text": 2}, {"text": 3}]', 3),
        ("a.csv", b'text,n\r\n"a, ""b""\nc",1\r\nd,2\r\n', 2),
        ("a.csv.gz", gzip.compress(b"text\na\n"), 1),
    ],
)
def test_good_sources(tmp_path: Path, name: str, content: bytes, records: int) -> None:
    finding = look(tmp_path, name, content, columns=("text",))
    assert finding == Finding(
        accessible=True,
        size_bytes=len(content),
        record_count=records,
        format=name.split(".")[1],
    )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"", "no records"),
        ("a.jsonl", GOOD + b'{"text": \n', "line 4: it is not JSON"),
        ("a.jsonl", GOOD + b"[1]\n", "line 4: it is not a JSON object"),
        ("a.jsonl", GOOD + b'{"text": "\xff"}\n', "line 4: byte 11 is not UTF-8"),
        ("a.jsonl", "{}\n".encode("utf-16"), "line 1"),
        ("a.jsonl", GOOD + b'{"other": 1}\n', "record 3 has no 'text'"),
        ("a.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], "cannot be unpacked"),
        ("a.jsonl.gz", GOOD, "cannot be unpacked"),
        ("a.jsonl.xz", GOOD, "cannot be unpacked"),
        ("a.json", b'[{"text": 1},\n{"text": }]', "line 2"),
        ("a.json", b'{"text": 1}', "not a JSON array"),
        ("a.json", b"[1]", "record 1"),
        ("a.csv", b"text,n\na,1\nb\n", "line 3: it has 1 fields, not 2"),
        ("a.csv", b"text,text\n", "same name"),
        ("a.csv", b"text\n\xff\n", "not UTF-8"),
        ("a.csv", b'text\n"a\n', "not CSV"),
        ("a.bin", b"x", "format cannot be told"),
        ("a.parquet", b"PAR1", "convert it to jsonl"),
    ],
)
def test_broken_sources(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    finding = look(tmp_path, name, content, columns=("text",))
    assert finding.accessible
    assert problem in finding.error_message


def test_sources_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(GOOD)
    assert not look(tmp_path, "missing.jsonl").accessible
    os.symlink(tmp_path / "secret.jsonl", tmp_path / "t" / "link.jsonl")
    for name in ("link.jsonl", "../secret.jsonl", ""):
        finding = look(tmp_path, name)
        assert not finding.accessible
        assert str(tmp_path) not in finding.error_message


def test_one_bad_record_among_many_in_little_memory(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    content = line * 20_000 + b"broken\n" + line
    tracemalloc.start()
    try:
        (tmp_path / "t").mkdir()
        (tmp_path / "t" / "a.jsonl").write_bytes(content)
        del content
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        finding = look(tmp_path, "a.jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert finding.record_count == 20_000
    assert "line 20001" in finding.error_message
    assert peak - before < 1_000_000


async def test_over_the_wire(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        good = client.write("a.jsonl", '{"text": "a"}\n')
        request = ValidateDataRequest(
            data_sources=[DataSource(path=good), DataSource(path="scaidrive://other/x.jsonl")]
        )
        answer = await client.call("ValidateData", request)
        assert not answer.valid
        first, second = answer.validations
        assert (first.path, first.record_count, first.format) == (good, 1, "jsonl")
        assert not second.accessible
        assert "your tenant's folder" in second.error_message
