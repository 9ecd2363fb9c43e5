"""Settings of the drive."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed, setting
from app.configuration.values import parse_path, parse_seconds, parse_size, parse_size_or_zero

_NO_PATH: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveSettings(Section):
    """Files over HTTP, `/v1/drive/`: only where ScaiDrive is a directory of this machine."""

    PREFIX: ClassVar[str] = "SCAIMIND_DRIVE_"

    dir: Path | None = parsed(
        _NO_PATH,
        "Directory of `scaidrive://<tenant>/<path>`: that of the coordinator on this machine. "
        "Without it there is no `/v1/drive/`.",
        parse_path,
        example="/var/lib/scaimind/drive",
    )
    quota: int = parsed(
        1024**4,
        "Bytes that a tenant may have on the drive, what its jobs write and unfinished uploads "
        "included, to upload more; 0 means no limit.",
        parse_size_or_zero,
    )
    min_free: int = parsed(
        1024**3,
        "Bytes of the drive's disk that uploads leave free, and of the disk of a tenant's folder.",
        parse_size,
    )
    upload_lifetime: float = parsed(
        86_400.0,
        "Time after the last byte of an unfinished upload at which it is deleted.",
        parse_seconds,
    )
    threads: int = setting(8, "Threads that wait for the drive's disk.", at_least=1, at_most=256)
    max_threads_share: float = setting(
        0.5,
        "Share of SCAIMIND_DRIVE_THREADS, and of the calls that wait for them, that the requests "
        "of one tenant can take; at least one.",
        at_least=0.01,
        at_most=1,
    )
    call_timeout: float = setting(
        30.0, "How long a request waits for the drive's disk.", at_least=0.1, at_most=3600
    )
    max_transfers: int = setting(
        64,
        "Maximum number of uploads and downloads at the same time; a tenant has half of them. "
        "Each upload takes up to 3 MiB of memory.",
        at_least=2,
        at_most=10_000,
    )
