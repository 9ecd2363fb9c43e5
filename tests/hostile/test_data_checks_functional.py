"""Data sources that are damaged or made to do harm: each has its own finding, the others theirs."""

import asyncio
import gzip
import io
import os
import signal
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from app.coordinator.data.drive import Drive
from app.coordinator.data.validation import Finding
from app.coordinator.data.validation_pool import Question, ValidationPool
from app.coordinator.errors import Overloaded
from app.coordinator.identity.access import Access
from app.coordinator.isolation.system_paths import system_paths
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest, ValidateDataResponse
from generated.mindcoordinator.v1.jobs_pb2 import DataSource
from tests.coordinator.harness import Client, running

GOOD = b'{"text": "a"}\n{"text": "b"}\n'


def put(client: Client, name: str, content: bytes) -> str:
    url = client.write(name, "")
    (client.drive / client.tenant / name).write_bytes(content)
    return url


async def check(client: Client, *urls: str) -> ValidateDataResponse:
    answer: ValidateDataResponse = await client.call(
        "ValidateData", ValidateDataRequest(data_sources=[DataSource(path=url) for url in urls])
    )
    return answer


def damaged_parquet() -> bytes:
    """A file whose footer says that its first page is where there is none."""
    out = io.BytesIO()
    table = pyarrow.table({"text": [[{"deep": [str(n)]}] for n in range(1000)]})
    parquet.write_table(table, out, compression="none")
    content = bytearray(out.getvalue())
    content[4:200] = os.urandom(196)
    return bytes(content)


async def test_a_bad_source_does_not_spoil_the_others(tmp_path: Path) -> None:
    bit = bytearray(gzip.compress(os.urandom(5000).hex().encode()))
    bit[len(bit) // 2] ^= 1
    hostile = {
        "flipped.jsonl.gz": (bytes(bit), "it cannot be unpacked further"),
        "short.jsonl.gz": (gzip.compress(GOOD * 100)[:-9], "it cannot be unpacked further"),
        "digits.json": (b'[{"n": ' + b"7" * 5000 + b"}]", "a number has more than"),
        "digits.jsonl": (b'{"n": ' + b"7" * 5000 + b"}\n", "line 1: it is not JSON"),
        "deep.json": (b"[" * 100_000, "nested too deeply"),
        "deep.jsonl": (b'{"a":' * 100_000, "line 1: it is not JSON"),
        "endless.jsonl": (b"x" * 70_000_000, "line 1 is longer than"),
        "endless.json": (b'["' + b"x" * 140_000_000, "a record is longer than"),
        "nul.csv": (b"a,b\n1,\0\n", "line 2: it has a NUL character"),
        "quote.csv": (b'a,b\n1,"2\n', "line 2: it is not CSV"),
        "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), "line 1: it is UTF-16"),
        "footer.parquet": (b"PAR1" + b"\xff" * 64 + b"\xff\xff\xff\x7fPAR1", "not Parquet"),
        "pages.parquet": (damaged_parquet(), "not Parquet"),
    }
    async with running(tmp_path) as (_, client):
        good = put(client, "good.jsonl", GOOD)
        os.mkfifo(client.drive / "local" / "pipe.jsonl")
        urls = [put(client, name, content) for name, (content, _) in hostile.items()]
        pipe = "scaidrive://local/pipe.jsonl"
        answer = await check(client, good, *urls, pipe, good)
        first, *bad, special, last = answer.validations
        for finding in (first, last):
            assert (finding.record_count, finding.error_message) == (2, "")
        for finding, (name, (_, problem)) in zip(bad, hostile.items(), strict=True):
            assert finding.path == f"scaidrive://local/{name}"
            assert problem in finding.error_message, name
        assert "neither a file nor a directory" in special.error_message


async def test_a_source_that_needs_too_much_memory_costs_the_others_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, validation_memory=96 * 1024**2) as (_, client):
        good = put(client, "good.jsonl", GOOD)
        wide = put(client, "wide.json", b'[{"a": [' + b"[1]," * 4_000_000 + b"1]}]")
        answer = await check(client, good, wide, good, wide, good)
        assert [finding.record_count for finding in answer.validations] == [2, 0, 2, 0, 2]
        for finding in answer.validations[1::2]:
            assert "more memory than a data check may use" in finding.error_message


async def test_thousands_of_files_are_one_source(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        folder = client.drive / "local" / "many"
        folder.mkdir()
        for number in range(5000):
            (folder / f"{number:05}.jsonl").write_bytes(GOOD)
        os.mkfifo(folder / "pipe.jsonl")
        (finding,) = (await check(client, "scaidrive://local/many")).validations
        assert (finding.record_count, finding.error_message) == (10_000, "")
        (folder / "02500.jsonl").write_bytes(b"{")
        (finding,) = (await check(client, "scaidrive://local/many")).validations
        assert finding.record_count == 5000
        assert finding.error_message.startswith("02500.jsonl: line 1: it is not JSON")


@pytest.fixture
def validation_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ValidationPool:
    """Data checks whose process meets with what a parser of foreign code may do."""
    monkeypatch.setattr("app.coordinator.data.validation_pool.WORKER", "tests.hostile.odd_examiner")
    for name in ("crash", "killed", "leaves", "wild", "odd", "slow", "good"):
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / f"{name}.jsonl").write_bytes(GOOD)
    return ValidationPool(
        Drive(tmp_path),
        workers=2,
        memory_bytes=2 * 1024**3,
        readable=system_paths([tmp_path]),
    )


async def found(
    validation_pool: ValidationPool, *names: str, within: float | None = None
) -> list[Finding]:
    questions = [Question(f"scaidrive://t/{name}.jsonl", "", ()) for name in names]
    return await validation_pool.check(Access("t"), questions, within=within)


async def test_the_source_whose_check_dies_is_told_and_the_others_are_checked(
    validation_pool: ValidationPool,
) -> None:
    names = ("good", "crash", "good", "killed", "leaves", "wild", "odd", "good")
    findings = await found(validation_pool, *names)
    problems = dict(zip(names, (finding.error_message for finding in findings), strict=True))
    segv, kill = signal.strsignal(11), signal.strsignal(9)
    assert f"its check ended by signal 11 ({segv})" in problems["crash"]
    assert f"its check ended by signal 9 ({kill})" in problems["killed"]
    assert "its check ended with status 0" in problems["leaves"]
    assert "its check ended" in problems["wild"]
    assert "it cannot be parsed (LookupError: nobody expects it)" in problems["odd"]
    good = [finding for name, finding in zip(names, findings, strict=True) if name == "good"]
    assert [(finding.record_count, finding.error_message) for finding in good] == [(2, "")] * 3


async def test_a_source_that_takes_too_long_leaves_the_others_their_time(
    validation_pool: ValidationPool,
) -> None:
    findings = await found(validation_pool, "good", "slow", "good", "slow", within=12)
    first, second, third, fourth = findings
    assert (first.record_count, third.record_count) == (2, 2)
    for finding in (second, fourth):
        assert "its check did not finish within" in finding.error_message
        assert "check it alone" in finding.error_message


async def test_a_tenant_whose_checks_fill_its_room_keeps_nobody_else_from_checking(
    validation_pool: ValidationPool, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good.jsonl").write_bytes(GOOD)
    slow = [
        asyncio.create_task(found(validation_pool, "slow"), name=f"slow check {number}")
        for number in range(60)
    ]
    question = Question("scaidrive://other/good.jsonl", "", ())
    try:
        # Those that find no room are refused before anybody else asks.
        await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        refused = [task for task in slow if task.done()]
        assert {type(task.exception()) for task in refused} == {Overloaded}
        (finding,) = await validation_pool.check(Access("other"), [question])
        assert (finding.record_count, finding.error_message) == (2, "")
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
