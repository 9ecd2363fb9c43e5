"""Data sources, good and broken."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from app.coordinator.data import json_array as json_elements
from app.coordinator.data import readers as formats
from app.coordinator.data import unpacking
from app.coordinator.data.drive import Drive
from app.coordinator.data.preview import Preview
from app.coordinator.data.readers import format_of
from app.coordinator.data.text import BadData
from app.coordinator.data.validation import Finding, examine
from app.coordinator.identity.access import Access

GOOD = b'{"text": "a"}\n\n{"text": "b"}\n'


def parquet_bytes(records: int) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": [str(n) for n in range(records)]}), out)
    return out.getvalue()


def zstd_bytes(content: bytes) -> bytes:
    compressed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return compressed


def noise(lines: int) -> bytes:
    """JSON Lines that pack badly, so that a flipped bit hits what is packed."""
    random = Random(7)
    return b"".join(b'{"text": %d}\n' % random.getrandbits(60) for _ in range(lines))


def flipped(content: bytes) -> bytes:
    """The same with one bit in the middle flipped."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


SAMPLES = {
    "a.jsonl": GOOD,
    "a.json": b'[{"text": 1.5}, {"text": [null, "x"]}]',
    "a.csv": b'text,n\r\n"a, ""b""\nc",1\r\nd,2\r\n',
    "a.parquet": parquet_bytes(20),
    "a.jsonl.gz": gzip.compress(GOOD),
    "a.csv.bz2": bz2.compress(b"text\na\n"),
    "a.json.xz": lzma.compress(b'[{"text": 1}]'),
    "a.jsonl.zst": zstd_bytes(GOOD),
}


def look(
    root: Path,
    name: str,
    content: bytes | None = None,
    *,
    columns: tuple[str, ...] = (),
    format_name: str = "",
    preview: int = 0,
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
        preview=preview,
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
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "line 1: it is not JSON", 0),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "line 1: it is not JSON", 0),
        ("a.jsonl", b'{"te\0xt": 1}\n', "line 1: it is not JSON", 0),
        ("a.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], "cannot be unpacked", None),
        ("a.jsonl.gz", flipped(gzip.compress(noise(3000))), "pack it again", None),
        ("a.jsonl.bz2", flipped(bz2.compress(noise(3000))), "pack it again", None),
        ("a.jsonl.xz", flipped(lzma.compress(noise(3000))), "pack it again", None),
        ("a.jsonl.zst", zstd_bytes(noise(3000))[:-100], "pack it again", None),
        ("a.jsonl.gz", gzip.compress(GOOD)[:5], "cannot be unpacked", 0),
        ("a.jsonl.gz", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.bz2", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.xz", GOOD, "cannot be unpacked", 0),
        ("a.jsonl.zst", GOOD, "cannot be unpacked", 0),
        ("a.json", b'[{"text": 1},\n{"text": }]', "line 2: it is not JSON", 1),
        ("a.json", b'[{"text": 1}', "line 1: it is not JSON (',' or ']'", 1),
        ("a.json", b'[{"text": 1}] x', "content after the end", 1),
        ("a.json", b'[{"text": NaN}]', "NaN is not JSON", 0),
        ("a.json", b'[{"text": ' + b"[" * 100_000, "nested too deeply", 0),
        ("a.json", b'[{"text": 1},\n{"text": ' + b"1" * 5000 + b"}]", "line 2: a number has", 1),
        ("a.json", b'[{"text": 1},\n{"text": -' + b"1" * 5000, "line 2: a number has", 1),
        ("a.json", b'[{"text": "\0"}]', "line 1: it is not JSON", 0),
        ("a.json", '[{"text": 1}]'.encode("utf-16-le"), "line 1: it is not JSON", 0),
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
        ("a.csv", "text\na\n".encode("utf-16-le"), "line 1: it has a NUL character", 0),
        ("a.csv", b"text,n\na,1\nb\0,2\n", "line 3: it has a NUL character", 1),
        ("a.csv", b'text,n\na,1\nb,"2\n3,4\n', "line 3: it is not CSV", 1),
        ("a.csv", b'text,n\na,1\nb,"2"3\n', "line 3: it is not CSV", 1),
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


def test_a_csv_field_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_RECORD", 1000)
    spread = b'text\na\n"' + b"x\n" * 3000 + b'"\n'
    finding = look(tmp_path, "a.csv", spread)
    assert "line 3: it is not CSV (field larger than field limit" in finding.error_message
    assert finding.record_count == 1
    finding = look(tmp_path, "a.csv", b"text\na\n" + b"x" * 3000)
    assert "line 3 is longer than 1000 characters" in finding.error_message


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd_bytes])
def test_what_unpacks_to_too_much_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    suffix = {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}.get(pack, ".zst")
    bomb = pack(b'{"text": 1}\n' * 1_000_000)
    assert look(tmp_path, f"a.jsonl{suffix}", bomb).error_message == ""
    monkeypatch.setattr(unpacking, "ALWAYS", 1000)
    finding = look(tmp_path, f"a.jsonl{suffix}", bomb)
    assert "it unpacks to more than" in finding.error_message
    assert "unpack it and name the file itself" in finding.error_message
    assert finding.record_count < 1_000_000


def test_a_parquet_file_that_unpacks_to_too_much_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record is an index into a dictionary of one long text."""
    out = io.BytesIO()
    texts = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 100_000, pyarrow.int8()), pyarrow.array(["x" * 1000])
    )
    parquet.write_table(pyarrow.table({"text": texts}), out, store_schema=False)
    assert look(tmp_path, "a.parquet", out.getvalue()).record_count == 100_000
    monkeypatch.setattr(unpacking, "ALWAYS", 1000)
    finding = look(tmp_path, "a.parquet", out.getvalue())
    assert "it unpacks to more than" in finding.error_message
    assert finding.record_count < 100_000


def test_a_file_that_cannot_be_read_any_further_is_not_called_damaged(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 100:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(min(size, 60) if size and size > 0 else 60)

    for name, content in (
        ("a.jsonl.gz", gzip.compress(noise(3000))),
        ("a.jsonl.zst", zstd_bytes(noise(3000))),
        ("a.jsonl", noise(3000)),
        ("a.csv", b"text\n" * 3000),
    ):
        with pytest.raises(OSError, match="Input/output error"):
            formats.read(
                Failing(content),
                name=name,
                format_name=format_of(name),
                columns=(),
                tally=formats.Tally(),
            )


@settings(settings.get_profile("often"))
@given(data=st.data(), name=st.sampled_from(sorted(SAMPLES)))
def test_whatever_the_bytes_are_only_documented_errors_come(data: st.DataObject, name: str) -> None:
    """Bytes from nowhere, and good files with a piece cut out, changed or put in."""
    good = SAMPLES[name]
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        at = data.draw(st.integers(0, len(good)))
        end = data.draw(st.integers(at, min(at + 40, len(good))))
        content = good[:at] + data.draw(st.binary(max_size=12)) + good[end:]
    with suppress(BadData):
        formats.read(
            io.BytesIO(content),
            name=name,
            format_name=format_of(name),
            columns=("text",),
            tally=formats.Tally(),
        )


def test_names_and_columns_of_any_kind_come_back_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "t" / "odd"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"a\xff.jsonl")).write_bytes(b"{")
    finding = look(tmp_path, "odd")
    assert "\\udcff.jsonl" in finding.error_message
    finding.error_message.encode()
    finding = look(tmp_path, "a.jsonl", GOOD, columns=("x" * 100_000,))
    assert len(finding.error_message) < 200
    (folder / os.fsdecode(b"a\xff.jsonl")).unlink()
    for number in range(3):
        with open(folder / f"{number}.jsonl", "wb") as file:
            # All holes: nothing is on the disk.
            file.truncate(2**42)
    finding = look(tmp_path, "odd")
    assert finding.size_bytes == 3 * 2**42
    assert "line 1 is longer than" in finding.error_message


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


PREVIEWS = {
    "a.jsonl": (GOOD, ['{"text": "a"}', '{"text": "b"}']),
    "a.jsonl.gz": (gzip.compress(GOOD), ['{"text": "a"}', '{"text": "b"}']),
    "a.json": (
        b'[{"text": 1.5, "n": 1e999}, {"text": [null, true, "\\ud800"]}]',
        ['{"text": 1.5, "n": null}', '{"text": [null, true, "\\ud800"]}'],
    ),
    "a.csv": (
        b'text,n\r\n"a, ""b""\nc",1\r\n\r\nd,2\r\n',
        ['{"text": "a, \\"b\\"\\nc", "n": "1"}', '{"text": "d", "n": "2"}'],
    ),
    "a.parquet": (parquet_bytes(3), ['{"text": "0"}', '{"text": "1"}', '{"text": "2"}']),
}


@pytest.mark.parametrize("name", PREVIEWS)
@pytest.mark.parametrize("preview", [0, 1, 2, 5])
def test_the_first_records_are_shown_as_json(tmp_path: Path, name: str, preview: int) -> None:
    content, records = PREVIEWS[name]
    plain = look(tmp_path, name, content)
    finding = look(tmp_path, name, preview=preview)
    assert list(finding.preview) == records[:preview]
    assert replace(finding, preview=()) == plain
    for record in finding.preview:
        json.loads(record)


def test_a_record_is_cut_at_four_kibibytes(tmp_path: Path) -> None:
    words = "ä" * 5000
    for name, content in (
        ("a.jsonl", json.dumps({"text": words}, ensure_ascii=False).encode()),
        ("b.json", json.dumps([{"text": words}]).encode()),
        ("c.csv", f"text,{'n' * 5000}\n{words},1\n".encode()),
        ("d.json", json.dumps([{"text": ["ab"] * 100_000}]).encode()),
    ):
        finding = look(tmp_path, name, content, preview=5)
        assert finding.error_message == ""
        [record] = finding.preview
        assert record.endswith("…")
        assert 4000 < len(record.encode()) <= 4096


def test_what_is_nested_too_deeply_is_cut() -> None:
    lists: list[Any] = []
    for _ in range(100_000):
        lists = [lists]
    preview = Preview(2)
    preview.add({"deep": lists})
    preview.add({"deep": []})
    [deep, flat] = preview.records
    assert deep.startswith('{"deep": [[[')
    assert deep.endswith("[…")
    assert flat == '{"deep": []}'


def test_records_of_several_files_and_before_a_bad_one_are_shown(tmp_path: Path) -> None:
    for number in range(3):
        look(tmp_path, f"shards/part-{number}.jsonl", b'{"n": %d}\n' % number)
    assert look(tmp_path, "shards", preview=2).preview == ('{"n": 0}', '{"n": 1}')
    finding = look(tmp_path, "bad.jsonl", GOOD + b"{", preview=5)
    assert finding.error_message.startswith("line 4")
    assert len(finding.preview) == 2
    assert not look(tmp_path, "missing.jsonl", preview=5).preview


def test_what_parquet_has_beyond_json_is_shown_as_text(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "when": pyarrow.array([0], pyarrow.timestamp("us", tz="UTC")),
            "image": pyarrow.array([b"\x89PNG"]),
            "loss": pyarrow.array([float("nan")]),
            # No time of Python's.
            "far": pyarrow.array([2**60], pyarrow.timestamp("us")),
        }
    )
    out = io.BytesIO()
    parquet.write_table(table.drop_columns("far"), out)
    finding = look(tmp_path, "a.parquet", out.getvalue(), preview=1)
    assert finding.preview == (
        '{"when": "1970-01-01 00:00:00+00:00", "image": "(4 bytes)", "loss": null}',
    )
    out = io.BytesIO()
    parquet.write_table(table.select(["far"]), out)
    finding = look(tmp_path, "b.parquet", out.getvalue(), preview=1)
    assert (finding.record_count, finding.error_message) == (1, "")
