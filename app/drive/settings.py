"""Settings of the drive."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.configuration.section import Section, parsed, setting
from app.configuration.values import (
    parse_bucket_url,
    parse_path,
    parse_seconds,
    parse_size,
    parse_size_or_zero,
    parse_url,
)

_NO_PATH: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveSettings(Section):
    """Files over HTTP, `/v1/drive/`: of a directory of this machine, or of a bucket."""

    PREFIX: ClassVar[str] = "SCAIMIND_DRIVE_"
    EXCLUSIVE: ClassVar[tuple[tuple[str, str], ...]] = (("url", "dir"),)
    REQUIRES: ClassVar[tuple[tuple[str, str], ...]] = (
        ("endpoint", "url"),
        ("credentials_file", "url"),
    )

    dir: Path | None = parsed(
        _NO_PATH,
        "Directory of `scaidrive://<tenant>/<path>`: that of the coordinator on this machine. "
        "Without it or SCAIMIND_DRIVE_URL there is no `/v1/drive/`.",
        parse_path,
        example="/var/lib/scaimind/drive",
    )
    url: str = parsed(
        "",
        "The drive in an object store, `s3://<bucket>/<prefix>`, in place of SCAIMIND_DRIVE_DIR: "
        "as the coordinator's setting drive_url has it. Needs the extra `s3`.",
        parse_bucket_url,
        example="s3://scaimind/drive",
    )
    endpoint: str = parsed(
        "",
        "Address of the object store, if it is not Amazon's.",
        parse_url,
        example="https://s3.example.com",
    )
    credentials_file: Path | None = parsed(
        _NO_PATH,
        "File with the credentials for SCAIMIND_DRIVE_URL, in the form of `~/.aws/credentials` "
        "with a profile `[default]`, for its owner alone to read. Without it, what the AWS SDK "
        "finds: variables, its own files, the machine's role.",
        parse_path,
        example="/etc/scaimind/drive-credentials",
    )
    quota: int = parsed(
        1024**4,
        "Bytes that a tenant may have on the drive, what its jobs write and unfinished uploads "
        "included, to upload more; 0 means no limit.",
        parse_size_or_zero,
    )
    min_free: int = parsed(
        1024**3,
        "Bytes of the drive's disk that uploads leave free, and of the disk of a tenant's folder; "
        "a store has none.",
        parse_size,
    )
    upload_lifetime: float = parsed(
        86_400.0,
        "Time after the last byte of an unfinished upload at which it is deleted.",
        parse_seconds,
    )
    threads: int = setting(
        8, "Threads that wait for the drive's disk or store.", at_least=1, at_most=256
    )
    max_threads_share: float = setting(
        0.5,
        "Share of SCAIMIND_DRIVE_THREADS, and of the calls that wait for them, that the requests "
        "of one tenant can take; at least one.",
        at_least=0.01,
        at_most=1,
    )
    call_timeout: float = setting(
        30.0, "How long a request waits for the drive's disk or store.", at_least=0.1, at_most=3600
    )
    max_transfers: int = setting(
        64,
        "Maximum number of uploads and downloads at the same time; a tenant has half of them. "
        "Each upload takes up to 3 MiB of memory, to a store 20 MiB and more the larger the file "
        "is, and each download from a store 1 MiB.",
        at_least=2,
        at_most=10_000,
    )

    @property
    def served(self) -> bool:
        """Whether the gateway serves the drive."""
        return self.dir is not None or bool(self.url)
