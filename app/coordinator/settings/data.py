"""Settings of where data are, and of what handles them for the coordinator."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from app.configuration.section import Section, parsed
from app.configuration.values import (
    parse_bucket_url,
    parse_count,
    parse_path,
    parse_paths,
    parse_size,
    parse_size_or_zero,
    parse_url,
)

#: Below the working directory of the start.
DEFAULT_DATA_DIR: Final = Path("var/coordinator")
_NO_PATH: Path | None = None
_NO_PATHS: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section):
    """Data, models and exports."""

    PREFIX: ClassVar[str] = "SCAIMIND_COORDINATOR_"

    data_dir: Path = parsed(
        DEFAULT_DATA_DIR,
        "Directory of the database, the jobs' files, the cache and the models.",
        parse_path,
        example="/var/lib/scaimind",
    )
    drive_dir: Path | None = parsed(
        _NO_PATH,
        "Directory of `scaidrive://<tenant>/<path>`; `drive` in data_dir if not set.",
        parse_path,
        example="/srv/scaidrive",
    )
    drive_url: str = parsed(
        "",
        "The drive in an object store, `s3://<bucket>/<prefix>`, where nodes share no disk (engine "
        "= ray). Then `scaidrive://<tenant>/<path>` is the object `<prefix>/<tenant>/<path>`, and "
        "drive_dir and atlas_dir are not used. Needs the extra `s3` on every machine.",
        parse_bucket_url,
        example="s3://scaimind/drive",
    )
    drive_endpoint: str = parsed(
        "",
        "Address of the object store of drive_url, if it is not Amazon's.",
        parse_url,
        example="https://s3.example.com",
    )
    drive_credentials_file: Path | None = parsed(
        _NO_PATH,
        "File with the credentials for drive_url, in the form of `~/.aws/credentials` with a "
        "profile `[default]`, at the same path on every machine, for its owner alone to read. "
        "Without it, what the AWS SDK finds: variables, its own files, the machine's role.",
        parse_path,
        example="/etc/scaimind/drive-credentials",
    )
    atlas_dir: Path | None = parsed(
        _NO_PATH,
        "Directory of `scaiatlas://<tenant>/<name>`; `atlas` in data_dir if not set.",
        parse_path,
        example="/srv/scaiatlas",
    )
    allowed_paths: tuple[Path, ...] = parsed(
        _NO_PATHS,
        "Directories of this machine that jobs of every tenant may read by absolute path.",
        parse_paths,
        example="/srv/datasets",
        separator=os.pathsep,
    )
    cache_bytes: int = parsed(
        10 * 1024**3,
        "Size of the data-set cache; 0 turns it off. Data that do not fit are read in place.",
        parse_size_or_zero,
    )
    validation_workers: int = parsed(
        2,
        "Maximum number of concurrent data checks, each in a process of its own. A tenant can use "
        "half of them, but at least one.",
        parse_count,
    )
    validation_memory: int = parsed(
        2 * 1024**3, "Memory limit of a data check's process.", parse_size
    )
    export_bytes: int = parsed(
        512 * 1024**3,
        "Maximum size of a job's artefacts, including holes in sparse files.",
        parse_size,
    )
    export_files: int = parsed(
        250_000, "Maximum number of files and directories among a job's artefacts.", parse_count
    )
    export_memory: int = parsed(
        0,
        "Memory limit of the process that converts artefacts; half of this machine's memory if "
        "not set.",
        parse_size_or_zero,
    )

    @property
    def drive_root(self) -> Path:
        """The local ScaiDrive."""
        return self.drive_dir or self.data_dir / "drive"

    @property
    def atlas_root(self) -> Path:
        """The local ScaiAtlas."""
        return self.atlas_dir or self.data_dir / "atlas"
