"""The results that an evaluation's process left, as they are told.

The model's own code runs in that process, and may have left anything: one
result that cannot be read does not spoil the others.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from app.coordinator.jobs.model import MAX_COUNT
from app.coordinator.storage.untrusted_json import TOO_LARGE, is_number, parse, shown_text
from app.files.directory import Directory
from app.shortening import shortened
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, BenchmarkResult

_MAX_FILE: Final = 4 * 1024 * 1024
_MAX_SCORES: Final = 256
_MAX_NAME: Final = 128
#: Characters of an error text; a hundred of the longest fit into a message many times.
_MAX_ERROR: Final = 8 * 1024


class BadResults(Exception):
    """There is nothing that could be told as results; the message says why."""


def read_results(output: Path, name: str, benchmarks: Sequence[Benchmark]) -> list[BenchmarkResult]:
    """The results in the file `name`, one of each benchmark. Blocks. Raises BadResults."""
    try:
        with Directory.open(output) as directory, directory.open_file(name) as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise BadResults(error.strerror or "it cannot be read") from None
    if len(raw) > _MAX_FILE:
        raise BadResults(f"it has more than {_MAX_FILE} bytes")
    try:
        results = parse(raw)
    except ValueError as error:
        raise BadResults(str(error)) from None
    if not isinstance(results, list) or len(results) != len(benchmarks):
        raise BadResults(f"it is not a list of {len(benchmarks)} results")
    return [
        _result(benchmark, result) for benchmark, result in zip(benchmarks, results, strict=True)
    ]


def _result(benchmark: Benchmark, result: Any) -> BenchmarkResult:
    told = BenchmarkResult(name=benchmark.name, dataset=benchmark.dataset)
    if not isinstance(result, dict):
        told.error_message = "Its result cannot be read: it is not a JSON object."
        return told
    error = result.get("error_message")
    if isinstance(error, str):
        # It may have several lines.
        text = shortened(error.encode("utf-8", "replace").decode(), _MAX_ERROR)
        told.error_message = text.replace("\0", "")
    told.num_samples = int(_number(result.get("num_samples"), most=MAX_COUNT))
    told.duration_seconds = _number(result.get("duration_seconds"), most=MAX_COUNT)
    scores = result.get("scores")
    left_out = not isinstance(scores, dict) or len(scores) > _MAX_SCORES
    for score_name, score in _first(scores):
        if is_number(score) and score is not TOO_LARGE:
            told.scores[shown_text(score_name, most=_MAX_NAME)] = score
        else:
            left_out = True
    if left_out and not told.error_message:
        told.error_message = "Scores that are not numbers, or too many, are left out."
    return told


def _number(value: Any, *, most: int) -> float:
    """A count or a duration; 0 if it is none that can be told."""
    if not is_number(value) or value is TOO_LARGE or not math.isfinite(value):
        return 0
    return value if 0 <= value <= most else 0


def _first(scores: Any) -> list[tuple[str, Any]]:
    return list(scores.items())[:_MAX_SCORES] if isinstance(scores, dict) else []
