"""Uploads and downloads a large file through a whole stack, beside cp on the same disk.

    .venv/bin/python -m scripts.bench.files [--gigabytes 5] [--folder /tmp]

curl sends the file to `/v1/drive/`, cp copies it; both count until it is on the disk. Then
curl fetches it and cp copies it again. No file is in the page cache when its turn begins.
The gateway's memory is its peak, before and after. Needs curl, and disk for four such
files. An upload that is cut in its middle, and the gateway killed, goes on by tus at
the end.
"""

import argparse
import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2 as httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
#: The slowest that a transfer may be, as a share of cp's speed.
LEAST = 0.5
#: By how much the gateway's peak may grow, whatever is sent.
MEMORY = 64 * 1024 * 1024
PATIENCE = 180.0
_PIECE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, and how it is asked."""

    url: str
    key: str
    supervisor: int

    @property
    def gateway(self) -> psutil.Process:
        """The process that serves."""
        children = psutil.Process(self.supervisor).children()
        return next(each for each in children if each.cmdline()[-1:] == ["serve"])

    def peak(self) -> int:
        """Most memory that the gateway has held, in bytes."""
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def cpu(self) -> float:
        """CPU time of the gateway so far, in seconds."""
        times = self.gateway.cpu_times()
        return times.user + times.system

    def curl(self, *arguments: str) -> None:
        """Run curl with the key."""
        command = ["curl", "-sS", "-f", "-H", f"Authorization: Bearer {self.key}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """A stack with its data in this folder."""
    environ = {**os.environ, "SCAIMIND_DATA_DIR": str(folder / "var"), "SCAIMIND_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "app", "up"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            ready = next(line for line in process.stdout if line.startswith("Ready: "))
            url = ready.split()[1]
            key = (folder / "var" / "api-key").read_text().strip()
            yield Stack(url, key, process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


def write_source(path: Path, size: int) -> None:
    """A file without holes, which nothing packs."""
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))
        file.flush()
        os.fsync(file.fileno())


def settle(path: Path) -> None:
    """Have a file on the disk, and out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copied(source: Path, target: Path, *, durable: bool) -> float:
    """Seconds that cp takes; `durable` until the copy is on the disk."""
    settle(source)
    began = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)
    if durable:
        with target.open("rb") as file:
            os.fsync(file.fileno())
    spent = time.perf_counter() - began
    settle(target)
    return spent


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def went_on(stack: Stack, source: Path, size: int) -> None:
    """Cut an upload in its middle by killing the gateway, go on with it, and compare."""
    where = base64.b64encode(b"resumed.bin").decode()
    headers = {"Authorization": f"Bearer {stack.key}", "Tus-Resumable": "1.0.0"}
    made = httpx.post(
        f"{stack.url}/v1/drive-uploads/",
        headers={**headers, "Upload-Length": str(size), "Upload-Metadata": f"path {where}"},
    )
    url = stack.url + made.headers["Location"]
    kind = {"Content-Type": "application/offset+octet-stream"}

    def rest(offset: int, stop: int) -> Iterator[bytes]:
        with source.open("rb") as file:
            file.seek(offset)
            while offset < stop and (piece := file.read(min(_PIECE, stop - offset))):
                offset += len(piece)
                yield piece
            if stop < size:
                stack.gateway.kill()

    with suppress(httpx.TransportError):
        httpx.patch(
            url,
            headers={**headers, **kind, "Upload-Offset": "0"},
            content=rest(0, size // 2),
            timeout=PATIENCE,
        )
    offset = -1
    deadline = time.monotonic() + PATIENCE
    while offset < 0 and time.monotonic() < deadline:
        try:
            offset = int(
                httpx.head(url, headers=headers, timeout=PATIENCE).headers["Upload-Offset"]
            )
        except (httpx.TransportError, KeyError):
            time.sleep(0.1)
    answer = httpx.patch(
        url,
        headers={**headers, **kind, "Upload-Offset": str(offset)},
        content=rest(offset, size),
        timeout=PATIENCE,
    )
    print(f"cut at {offset / 1e9:.2f} GB with the gateway killed; went on: {answer.status_code}")


def main() -> int:
    """Print speeds and ratios; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    size = int(given.gigabytes * 1e9)
    missed = False
    with TemporaryDirectory(dir=given.folder) as name, running(Path(name)) as stack:
        folder = Path(name)
        source, copy, fetched = folder / "source", folder / "copy", folder / "fetched"
        write_source(source, size)
        stored = folder / "var" / "drive" / "local" / "large.bin"
        url = f"{stack.url}/v1/drive/large.bin"
        before = stack.peak()

        by_cp = copied(source, copy, durable=True)
        copy.unlink()
        settle(source)
        began = time.perf_counter()
        cpu = stack.cpu()
        stack.curl("-T", str(source), "-H", "Expect:", url)
        up = time.perf_counter() - began
        cpu_up = stack.cpu() - cpu
        settle(stored)
        down_by_cp = copied(stored, copy, durable=False)
        copy.unlink()
        settle(stored)
        began = time.perf_counter()
        cpu = stack.cpu()
        stack.curl("-o", str(fetched), url)
        down = time.perf_counter() - began
        cpu_down = stack.cpu() - cpu
        grown = stack.peak() - before
        for what, spent, peer, cpu in (
            ("up", up, by_cp, cpu_up),
            ("down", down, down_by_cp, cpu_down),
        ):
            ratio = peer / spent
            missed |= ratio < LEAST
            print(
                f"{what:>4}: {size / spent / 1e6:,.0f} MB/s, cp {size / peer / 1e6:,.0f} MB/s,"
                f" {ratio:.2f} of it (at least {LEAST:g}); the gateway's CPU: {cpu:.1f} s"
            )
        missed |= grown > MEMORY
        print(
            f"gateway's peak memory: {before / 2**20:.0f} MiB before,"
            f" {grown / 2**20:.0f} MiB more after (at most {MEMORY / 2**20:.0f})"
        )
        assert digest(fetched) == digest(source), "what came back is something else"
        fetched.unlink()
        went_on(stack, source, size)
        resumed = stored.with_name("resumed.bin")
        assert digest(resumed) == digest(source), "what went on is something else"
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
