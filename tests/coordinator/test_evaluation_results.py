"""What an evaluation's process left, as it is told."""

import json
import math
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.bridge.converters import to_json
from app.coordinator.evaluations.results import BadResults, read_results
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, BenchmarkResult
from tests.leftovers import memory_folder

BENCHMARKS = [Benchmark(name="a", dataset="x"), Benchmark(name="b", dataset="y")]
FINE = b'{"scores": {"s": 0.5}, "num_samples": 3, "duration_seconds": 1.5, "error_message": ""}'


def read(path: Path, raw: bytes) -> list[BenchmarkResult]:
    (path / "results.json").write_bytes(raw)
    return read_results(path, "results.json", BENCHMARKS)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 64 levels"),
        (b"[" * 3_000_000, "nested more than 64 levels"),
        (b" " * (5 * 1024 * 1024), "more than 4194304 bytes"),
        (b"\xff", "not JSON"),
        (b"{}", "not a list of 2 results"),
        (b"[]", "not a list of 2 results"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, raw: bytes, problem: str) -> None:
    with pytest.raises(BadResults, match=problem):
        read(tmp_path, raw)


@pytest.mark.parametrize("kind", ["nothing", "link", "directory", "pipe"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results.json"
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(BadResults):
        read_results(tmp_path, "results.json", BENCHMARKS)


@pytest.mark.parametrize(
    "bad",
    [
        b"3",
        b"null",
        b"{}",
        b'{"scores": []}',
        b'{"scores": {"s": %s}}' % (b"1" * 400),
        b'{"scores": {"s": %s}}' % (b"1" * 5_000),
        b'{"scores": {"s": null}}',
    ],
)
def test_a_bad_result_does_not_spoil_the_other(tmp_path: Path, bad: bytes) -> None:
    first, second = read(tmp_path, b"[" + bad + b", " + FINE + b"]")
    assert first.error_message
    assert not first.scores
    assert (second.scores["s"], second.num_samples, second.error_message) == (0.5, 3, "")


def test_a_good_score_stays_beside_a_bad_one(tmp_path: Path) -> None:
    raw = b'{"scores": {"s": 0.5, "t": %s, "u": NaN}, "num_samples": 1e30}' % (b"1" * 400)
    first, _ = read(tmp_path, b"[" + raw + b", " + FINE + b"]")
    assert first.scores.keys() == {"s", "u"}
    assert math.isnan(first.scores["u"])
    assert first.num_samples == 0


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 10**310)
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = ("scores", "num_samples", "duration_seconds", "error_message")
results = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, values))
files = st.lists(results | values, max_size=3).map(lambda value: json.dumps(value).encode())
SURROGATES = b'[{"scores": {"\\ud800": 1}, "error_message": "\\udfff"}, {"error_message": "%s"}]'


@settings(settings.get_profile("often"))
@given(st.binary(max_size=200) | files)
@example(SURROGATES % (b"x" * 100_000))
def test_whatever_is_there_can_be_told(raw: bytes) -> None:
    with memory_folder() as path:
        try:
            told = read(path, raw)
        except BadResults:
            return
    assert len(told) == 2
    for result in told:
        orjson.dumps(to_json(result))
        assert result.ByteSize() < 256 * 1024
