"""Check a gigabyte of data in each format, beside peers that read the same files.

    .venv/bin/python -m scripts.bench.validate [--bytes 1000000000] [--formats jsonl csv]

Each file goes through ValidateData of a coordinator in this process, over
gRPC, so that the time includes the start of the process that parses. Memory is
that process's peak. Meanwhile the same client asks for its list of jobs, one
call after the other: `calls` is how long they take. Peers: `wc -l`, which
only counts line feeds; json.loads a line, csv.reader, and pyarrow's own readers.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc.aio
import psutil
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from app.coordinator import CoordinatorConfig
from app.coordinator.server import Coordinator
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.data_pb2 import ValidateDataRequest
from generated.mindcoordinator.v1.jobs_pb2 import DataSource, ListJobsRequest

if TYPE_CHECKING:
    from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorAsyncStub

TENANT = "bench"
SECRET = "bench"  # noqa: S105  # of a coordinator that lives as long as this program
WORDS = [
    "the",
    "model",
    "learns",
    "a",
    "few",
    "words",
    "and",
    "answers",
    "every",
    "question",
    "with",
    "care",
]
#: What a check may take, in seconds for a gigabyte and in bytes.
LIMIT = 60.0
MEMORY = 400 * 1024**2
BATCH = 20_000


def records() -> list[dict[str, object]]:
    """Twenty thousand records of about 300 bytes."""
    rng = random.Random(1)
    return [
        {
            "id": number,
            "text": " ".join(rng.choices(WORDS, k=rng.randint(20, 80)))
            + ', "so"' * (number % 3 == 0),
            "score": rng.random(),
        }
        for number in range(BATCH)
    ]


def make(path: Path, size: int) -> None:
    """A file of about `size` bytes in the format that its name tells."""
    batch = records()
    if path.suffix == ".parquet":
        table = pyarrow.Table.from_pylist(batch)
        with pyarrow.parquet.ParquetWriter(path, table.schema, compression="none") as writer:
            while path.stat().st_size < size:
                writer.write_table(table)
        return
    with path.open("w", newline="") as file:
        if path.suffix == ".jsonl":
            text = "".join(json.dumps(record) + "\n" for record in batch)
        elif path.suffix == ".json":
            file.write('[{"id": -1, "text": "", "score": 0}')
            text = "".join(",\n" + json.dumps(record) for record in batch)
        else:
            writer = csv.DictWriter(file, batch[0])
            writer.writeheader()
            begin = file.tell()
            writer.writerows(batch)
            file.flush()
            text = path.read_text()[begin:]
        while file.tell() < size:
            file.write(text)
        if path.suffix == ".json":
            file.write("]")


def peers(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Other ways to read the file."""
    if path.suffix != ".parquet":
        yield "wc -l", lambda: subprocess.run(["wc", "-l", path], check=True, capture_output=True)
    if path.suffix == ".jsonl":
        yield "json.loads", lambda: [None for line in path.open() if json.loads(line) is None]
        yield "pyarrow", lambda: _drain(pyarrow.json.open_json(path))
    elif path.suffix == ".csv":
        yield "csv.reader", lambda: [None for row in csv.reader(path.open(newline="")) if not row]
        yield "pyarrow", lambda: _drain(pyarrow.csv.open_csv(path))
    elif path.suffix == ".parquet":
        file = pyarrow.parquet.ParquetFile(path)
        yield "pyarrow", lambda: _drain(file.iter_batches(use_threads=False))


def _drain(batches: object) -> int:
    return sum(batch.num_rows for batch in batches)  # type: ignore[attr-defined]


class Bench:
    """A coordinator, and a client of it."""

    def __init__(self, stub: "MindCoordinatorAsyncStub") -> None:
        self._stub = stub
        #: Most that the processes of checks had at once, in bytes.
        self._memory = 0
        self._metadata = (("x-api-secret", SECRET), ("x-tenant-id", TENANT))

    async def check(self, path: Path) -> tuple[float, int, list[float]]:
        """Seconds and bytes that a check takes, and seconds of calls meanwhile."""
        source = DataSource(path=f"scaidrive://{TENANT}/{path.name}", columns=["text"])
        began = time.perf_counter()
        check = asyncio.ensure_future(
            self._stub.ValidateData(
                ValidateDataRequest(data_sources=[source]), metadata=self._metadata
            )
        )
        self._memory = 0
        calls = await self.calls(until=check)
        answer = await check
        took = time.perf_counter() - began
        if not answer.valid:
            raise SystemExit(f"{path.name}: {answer.validations[0].error_message}")
        return took, self._memory, calls

    async def calls(self, *, until: "asyncio.Future[Any]") -> list[float]:
        """Seconds of calls, one behind the other."""
        took = []
        while not until.done():
            began = time.perf_counter()
            await self._stub.ListJobs(ListJobsRequest(), metadata=self._metadata)
            took.append(time.perf_counter() - began)
            self._memory = max(self._memory, _memory_of_children())
            await asyncio.sleep(0.005)
        return took


def _memory_of_children() -> int:
    """Bytes of the checks that run now. The system's own peak would count this process, too:
    a child begins as its copy."""
    total = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "app.coordinator.data.validation_worker" in child.cmdline():
                total += child.memory_info().rss
    return total


def quantiles(values: list[float]) -> str:
    """Median and 99th percentile in milliseconds."""
    cuts = statistics.quantiles(values, n=100)
    return f"{cuts[49] * 1000:.1f} ms, 99 % within {cuts[98] * 1000:.1f} ms"


async def measure(folder: Path, size: int, formats: list[str]) -> bool:
    """Print a report; tell whether all of it is within the limits."""
    config = CoordinatorConfig(data_dir=folder, api_secret=SECRET, address="127.0.0.1:0")
    good = True
    async with (
        Coordinator(config) as coordinator,
        grpc.aio.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel,
    ):
        bench = Bench(MindCoordinatorStub(channel))
        idle = asyncio.ensure_future(asyncio.sleep(2))
        print(f"calls, nothing else: {quantiles(await bench.calls(until=idle))}")
        for name in formats:
            path = config.drive_root / TENANT / f"data.{name}"
            path.parent.mkdir(exist_ok=True)
            await asyncio.to_thread(make, path, size)
            took, memory, calls = await bench.check(path)
            rate = path.stat().st_size / took / 1e6
            good &= took < LIMIT * size / 1e9 + 5 and memory < MEMORY
            print(
                f"{name}: {took:.2f} s ({rate:.0f} MB/s), {memory / 1024**2:.0f} MiB;"
                f" calls: {quantiles(calls)}"
            )
            for peer, read in peers(path):
                began = time.perf_counter()
                await asyncio.to_thread(read)
                other = time.perf_counter() - began
                print(f"    {peer}: {other:.2f} s; the check takes {took / other:.2f} times that")
            path.unlink()
    return good


def main() -> int:
    """Status 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument(
        "--formats", nargs="+", default=["jsonl", "csv", "json", "parquet"], metavar="FORMAT"
    )
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(Path(folder), given.bytes, given.formats)) else 1


if __name__ == "__main__":
    sys.exit(main())
