"""Days of jobs: made ones, and those of public traces."""

import csv
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

#: Bytes of a file that is read as JSON.
_MOST_BYTES: Final = 2**30
_DAY: Final = 24 * 3600
#: Columns by what they mean, the one that says it best first.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "submitted": (
        "submitted_time",
        "submit_time",
        "creation_time",
        "submission_time",
        "start_time",
    ),
    "began": ("scheduled_time", "start_time", "creation_time"),
    "ended": ("end_time", "deletion_time", "finish_time"),
    "duration": ("duration", "run_time", "runtime"),
    "gpus": ("num_gpu", "num_gpus", "gpu_num", "gpus", "gpu_count", "plan_gpu"),
    "user": ("user", "tenant", "vc", "virtual_cluster"),
}
#: Of Alibaba's cluster-trace-gpu-v2020, whose files have no header.
_PAI_TASKS: Final = (
    "job_name", "task_name", "inst_num", "status", "start_time", "end_time", "plan_cpu",
    "plan_mem", "plan_gpu", "gpu_type",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job. Times are in seconds from the trace's beginning."""

    submitted: float
    runs: float
    #: In all; 0 asks for cores alone.
    gpus: int
    user: str = "user"
    #: Its max_runtime_seconds; 0 sets none.
    limit: int = 0


def made(seed: int, *, jobs: int) -> list[TraceJob]:
    """A day: most jobs are small and short, most GPU hours are those of a few large ones, and
    most come by day. Seven of ten have a limit, which is 1 to 3 times what they need."""
    choose = random.Random(seed)
    found = []
    for _ in range(jobs):
        hour = min(max(choose.gauss(13, 4), 0), 23.99) if choose.random() < 0.7 else None
        submitted = (hour if hour is not None else choose.uniform(0, 24)) * 3600
        runs = min(max(choose.lognormvariate(7.2, 1.4), 30), 12 * 3600)
        found.append(
            TraceJob(
                submitted=submitted,
                runs=runs,
                gpus=choose.choices((0, 1, 2, 4, 8, 16, 32), (15, 45, 14, 12, 9, 4, 1))[0],
                user=f"user-{choose.randrange(20)}",
                limit=round(runs * choose.uniform(1, 3)) + 1 if choose.random() < 0.7 else 0,
            )
        )
    return sorted(found, key=lambda job: job.submitted)


def read(path: Path, *, most: int) -> list[TraceJob]:
    """A public trace; the first `most` jobs of its first day. Raises OSError, ValueError."""
    with path.open(encoding="utf-8", newline="") as file:
        first = file.read(1)
        file.seek(0)
        if first in ("[", "{"):
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"{path} has more than {_MOST_BYTES} bytes")
            found = list(islice(_of_philly(json.load(file)), most))
        else:
            found = list(islice(_of_rows(_rows(file)), most))
    if not found:
        raise ValueError(
            f"{path} has no job with a time of submission, a duration and a number of GPUs"
        )
    begin = min(job.submitted for job in found)
    of_day = [
        TraceJob(job.submitted - begin, job.runs, job.gpus, job.user, job.limit)
        for job in found
        if job.submitted - begin < _DAY
    ]
    return sorted(of_day, key=lambda job: job.submitted)


def _rows(file: Iterable[str]) -> Iterator[Mapping[str, str]]:
    reader = csv.reader(file)
    header = next(reader, [])
    names = [name.strip().lower() for name in header]
    if not any(name in names for name in _COLUMNS["submitted"]):
        if len(header) != len(_PAI_TASKS):
            raise ValueError(f"its header has no time of submission: {', '.join(header)[:200]}")
        names = list(_PAI_TASKS)
        yield dict(zip(names, header, strict=True))
    for row in reader:
        yield dict(zip(names, row, strict=False))


def _of_rows(rows: Iterable[Mapping[str, str]]) -> Iterator[TraceJob]:
    for row in rows:
        try:
            submitted = _seconds(_column(row, "submitted"))
            gpus = float(_column(row, "gpus") or 0)
            if "plan_gpu" in row:
                gpus = gpus / 100 * float(row.get("inst_num") or 1)
            if duration := _column(row, "duration"):
                runs = float(duration)
            else:
                runs = _seconds(_column(row, "ended")) - _seconds(_column(row, "began"))
        except ValueError:
            # Rows of jobs that never ran have no times.
            continue
        if runs > 0 and gpus >= 0:
            yield TraceJob(submitted, runs, -int(-gpus // 1), _column(row, "user") or "user")


def _of_philly(jobs: Iterable[Mapping[str, Any]]) -> Iterator[TraceJob]:
    for job in jobs:
        attempts = [each for each in job.get("attempts", ()) if each.get("detail")]
        try:
            submitted = _seconds(job["submitted_time"])
            runs = sum(
                _seconds(each["end_time"]) - _seconds(each["start_time"]) for each in attempts
            )
            gpus = sum(len(node["gpus"]) for node in attempts[0]["detail"]) if attempts else 0
        except (KeyError, TypeError, ValueError):
            continue
        if runs > 0:
            yield TraceJob(submitted, runs, gpus, str(job.get("user", "user")))


def _column(row: Mapping[str, str], meaning: str) -> str:
    return next((row[name] for name in _COLUMNS[meaning] if row.get(name)), "")


def _seconds(text: str) -> float:
    """A time as seconds: a number, or a date."""
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
