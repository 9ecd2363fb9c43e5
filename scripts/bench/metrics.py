"""Draw the curves of a job with a million metric snapshots, and read the whole file, in one run.

    .venv/bin/python -m scripts.bench.metrics [--points 1000000]

The file is written by the coordinator's own writer. The peer reads every
snapshot and keeps the ends and the extremes of each series, without more.
"""

import argparse
import math
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from app.coordinator.metrics.downsampling import downsample
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from generated.mindcoordinator.v1.watch_pb2 import MetricsSnapshot
from scripts.bench.measuring import peak, timed

BATCH = 2000
ROUNDS = 5
#: Seconds in which a million points have to be answered, and how much faster that has to be.
LIMIT = 1.0
TARGET = 10.0


def main() -> int:
    """Print seconds and ratios; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    count = parser.parse_args().points
    with TemporaryDirectory() as folder:
        path = Path(folder)
        began = time.perf_counter()
        write(path, count)
        spent = time.perf_counter() - began
        size = (path / "snapshots").stat().st_size
        extra = (path / "blocks").stat().st_size / size
        print(
            f"{count:,} snapshots, {size / 2**20:.0f} MiB, written in {spent:.1f} s"
            f" ({spent / count * 1e6:.1f} us each); blocks take {extra:.1%} more"
        )
        ours = {
            points: timed(partial(downsample, path, points), rounds=ROUNDS)
            for points in (100, 1000, 10_000)
        }
        held = peak()
        # Last: its memory is not ours.
        theirs = timed(lambda: whole_file(path), rounds=1)
    print(f"whole file      {theirs:8.3f} s")
    for points, seconds in ours.items():
        print(f"{points:6} points   {seconds:8.3f} s   {theirs / seconds:6.0f}x")
    print(f"most memory held, writing and Python itself included: {held / 2**20:.0f} MiB")
    slowest = max(ours.values())
    return int(slowest > LIMIT or theirs / slowest < TARGET)


def write(path: Path, count: int) -> None:
    """Write a run's metrics: a noisy loss, an evaluation at every thousandth step."""
    writer = MetricsWriter(path)
    for start in range(0, count, BATCH):
        batch = []
        for step in range(start, min(start + BATCH, count)):
            noise = step * 2654435761 % 1000 / 1000
            snapshot = MetricsSnapshot(
                step=step,
                epoch=step / 50_000,
                loss=4 * math.exp(-step / 200_000) + noise,
                learning_rate=1e-4 * (1 - step / count),
                grad_norm=0.5 + noise,
                tokens_per_second=48_000 + 1000 * noise,
                extra={"total_steps": count, "router_z_loss": noise / 50},
            )
            if step % 1000 == 0:
                snapshot.eval_metrics["eval_loss"] = 2 + noise
            batch.append(snapshot)
        writer.append(batch)
    writer.close()


def whole_file(path: Path) -> dict[str, list[float]]:
    """Keep the first, last, lowest and highest point of each series, read one by one."""
    found: dict[str, list[float]] = {}
    with MetricsReader(path) as reader:
        for snapshot, _ in reader.places(after=0):
            for descriptor, value in snapshot.ListFields():
                named = (
                    value
                    if descriptor.name in ("extra", "eval_metrics")
                    else {descriptor.name: value}
                )
                if descriptor.name in ("sequence", "step"):
                    continue
                for name, number in named.items():
                    known = found.setdefault(name, [number] * 4)
                    known[1:] = number, min(known[2], number), max(known[3], number)
    return found


if __name__ == "__main__":
    sys.exit(main())
