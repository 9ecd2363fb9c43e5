"""From points, each with all its numbers, to arrays, one pair for each number."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from app.bridge.converters import JsonObject

#: What of a point is no measured number.
_NO_NUMBERS: Final = frozenset({"sequence", "step", "timestamp", "eval_metrics", "extra"})


def selected(
    answer: JsonObject, *, keys: Collection[str], from_step: int | None, to_step: int | None
) -> JsonObject:
    """Return an answer with what was asked for alone: an older coordinator returns all."""
    wanted = frozenset(keys)
    least = -(2**63) if from_step is None else from_step
    most = 2**63 if to_step is None else to_step
    points = [point for point in answer["points"] if least <= point["step"] <= most]
    if wanted:
        points = [_narrowed(point, wanted) for point in points]
        points = [point for point in points if any(True for _ in numbers_of(point))]
    return {**answer, "points": points}


def numbers_of(point: JsonObject) -> Iterator[tuple[str, float | None]]:
    """The numbers of a point by their names; null stands for what JSON cannot express."""
    for name, value in point.items():
        if name not in _NO_NUMBERS:
            yield name, value
    yield from point["eval_metrics"].items()
    yield from point["extra"].items()


def columns(answer: JsonObject, *, x: str) -> JsonObject:
    """Return the points of an answer as arrays for each number, and what lies between them."""
    series: dict[str, JsonObject] = {}
    for point in answer["points"]:
        place = point["step"] if x == "step" else unix_time(point["timestamp"])
        for name, value in numbers_of(point):
            one = series.setdefault(name, {"x": [], "y": []})
            one["x"].append(place)
            one["y"].append(value)
    for bucket in answer.get("between", {}).get("buckets", ()):
        if bucket["key"] in series:
            _add_bucket(series[bucket["key"]], bucket)
    return {
        "job_id": answer["job_id"],
        "total_points": answer["total_points"],
        "x": x,
        "series": series,
    }


def unix_time(text: str | None) -> float | None:
    """Return seconds since 1970 of a time as answers have it; None if it is not known."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _add_bucket(one: JsonObject, bucket: Mapping[str, Any]) -> None:
    buckets = one.setdefault(
        "buckets", {"from_step": [], "to_step": [], "minimum": [], "maximum": []}
    )
    for name, column in buckets.items():
        column.append(bucket[name])


def _narrowed(point: JsonObject, wanted: frozenset[str]) -> JsonObject:
    narrow = {name: value for name, value in point.items() if name in wanted or name in _NO_NUMBERS}
    for group in ("eval_metrics", "extra"):
        narrow[group] = {name: value for name, value in point[group].items() if name in wanted}
    return narrow
