"""How the coordinator is configured: a TOML file and `SCAIMIND_COORDINATOR_*`, read once."""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from app.coordinator.cluster.nodes import NodeSpec
from app.coordinator.isolation.levels import AUTO, UidRange
from app.coordinator.settings.values import (
    parse_address,
    parse_count,
    parse_isolation,
    parse_message_size,
    parse_network,
    parse_node_id,
    parse_path,
    parse_paths,
    parse_patience,
    parse_seconds,
    parse_secret,
    parse_size,
    parse_size_or_none,
    parse_uids,
    parse_url,
    read_secret,
)
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes

PREFIX: Final = "SCAIMIND_COORDINATOR_"
#: Names the TOML file, unless the command line does.
FILE_VARIABLE: Final = f"{PREFIX}CONFIG"


class BadConfig(Exception):
    """A setting is wrong; the message names it and says what it may be."""


def _about(
    text: str, parse: Callable[[str], Any], *, example: str = "", separator: str = ""
) -> dict[str, Any]:
    """What a setting means, how its text is read, and how a list of it is joined."""
    return {"text": text, "parse": parse, "example": example, "separator": separator}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorConfig:
    """Every setting of the coordinator. Times are in seconds, sizes in bytes.

    A field's name is its key in the TOML file, and in capitals, behind
    `SCAIMIND_COORDINATOR_`, its environment variable.
    """

    data_dir: Path = field(
        metadata=_about(
            "Where it keeps its database, the jobs' files, the cache and the models.",
            parse_path,
            example="/var/lib/scaimind",
        )
    )
    api_secret: str = field(
        repr=False,
        metadata=_about("What every caller must know; the gateway has the same.", parse_secret),
    )
    address: str = field(
        default="127.0.0.1:50051",
        metadata=_about("Where it listens, host:port; port 0 takes a free one.", parse_address),
    )
    listen_tls_cert_file: Path | None = field(
        default=None,
        metadata=_about(
            "Certificate chain (PEM) to listen with TLS; needs the key, too.",
            parse_path,
            example="/etc/scaimind/tls.crt",
        ),
    )
    listen_tls_key_file: Path | None = field(
        default=None,
        metadata=_about(
            "Private key (PEM) of the certificate.", parse_path, example="/etc/scaimind/tls.key"
        ),
    )
    listen_tls_client_ca_file: Path | None = field(
        default=None,
        metadata=_about(
            "Mutual TLS: only clients with a certificate of these authorities (PEM) are let in.",
            parse_path,
            example="/etc/scaimind/clients-ca.crt",
        ),
    )
    jwks_url: str = field(
        default="",
        metadata=_about(
            "Where the keys of the token issuer are. With it, forwarded tokens are demanded and"
            " checked; without it, the tenant that the gateway names is trusted.",
            parse_url,
            example="https://scaikey.example/.well-known/jwks.json",
        ),
    )
    token_issuer: str = field(
        default="",
        metadata=_about(
            "The `iss` that tokens must have; needed with jwks_url.",
            str,
            example="https://scaikey.example",
        ),
    )
    token_leeway: float = field(
        default=5.0,
        metadata=_about(
            "How far the clocks of issuer and coordinator may be apart.", parse_patience
        ),
    )
    jwks_max_age: float = field(
        default=300.0, metadata=_about("Maximum age of the issuer's keys.", parse_seconds)
    )
    jwks_cooldown: float = field(
        default=10.0,
        metadata=_about(
            "Minimum time between two fetches of the keys, for an unknown `kid` or after a"
            " failure.",
            parse_seconds,
        ),
    )
    jwks_stale_limit: float = field(
        default=4 * 3600.0,
        metadata=_about(
            "How long the keys are used beyond that age while they cannot be fetched.",
            parse_patience,
        ),
    )
    drive_dir: Path | None = field(
        default=None,
        metadata=_about(
            "Where `scaidrive://<tenant>/<path>` is; `drive` in data_dir unless given.",
            parse_path,
            example="/srv/scaidrive",
        ),
    )
    atlas_dir: Path | None = field(
        default=None,
        metadata=_about(
            "Where `scaiatlas://<tenant>/<name>` is; `atlas` in data_dir unless given.",
            parse_path,
            example="/srv/scaiatlas",
        ),
    )
    allowed_paths: tuple[Path, ...] = field(
        default=(),
        metadata=_about(
            "Folders of this machine that jobs of every tenant may read, by plain absolute path.",
            parse_paths,
            example="/srv/datasets",
            separator=os.pathsep,
        ),
    )
    cache_bytes: int = field(
        default=10 * 1024**3,
        metadata=_about(
            "What the data-set cache may hold; 0 switches it off. What does not fit is read"
            " where it is.",
            parse_size_or_none,
        ),
    )
    validation_workers: int = field(
        default=2,
        metadata=_about(
            "Data checks that run at the same time, each in a process of its own. One tenant has"
            " half of them at most, and one at least.",
            parse_count,
        ),
    )
    validation_memory: int = field(
        default=2 * 1024**3,
        metadata=_about("What the process of a data check may use at most.", parse_size),
    )
    export_bytes: int = field(
        default=512 * 1024**3,
        metadata=_about(
            "What the artefacts of one job may have, holes in sparse files included.", parse_size
        ),
    )
    export_files: int = field(
        default=250_000,
        metadata=_about("How many files and directories they may be.", parse_count),
    )
    export_memory: int = field(
        default=0,
        metadata=_about(
            "What the process that converts artefacts may use at most; half of this machine's"
            " memory unless given.",
            parse_size_or_none,
        ),
    )
    isolation: str = field(
        default=AUTO,
        metadata=_about(
            "How strongly jobs are kept apart: `namespaces`, `user`, `landlock` or `none`, and"
            " the start fails if the machine does not offer that or a stronger level. `auto`"
            " takes the strongest that works; below `user` it serves one tenant alone.",
            parse_isolation,
        ),
    )
    job_network: str = field(
        default="shared",
        metadata=_about(
            "`shared`: jobs use the machine's network. `none`: jobs on one node have loopback"
            " alone; needs the level `namespaces`.",
            parse_network,
        ),
    )
    job_uids: UidRange = field(
        default=UidRange(60706, 61183),
        metadata=_about(
            "User ids for jobs, `<first>-<last>`, where the coordinator is root: each run that"
            " goes on has its own. Nobody else may have them.",
            parse_uids,
            example="60706-61183",
        ),
    )
    stop_grace: float = field(
        default=30.0,
        metadata=_about(
            "How long a process that was asked to leave may take to save a checkpoint.",
            parse_seconds,
        ),
    )
    job_processes: int = field(
        default=4096,
        metadata=_about(
            "Processes and threads that a run may have at the same time. It has fewer where all"
            " runs together could otherwise take what the system has (pid_max, threads-max,"
            " pids.max of the coordinator's control groups, RLIMIT_NPROC): after a reserve, half"
            " of that is divided by cores among runs with `cpu_count`, half among as many without."
            " `processes_of_a_run` in the log at the start has the bounds.",
            parse_count,
        ),
    )
    job_open_files: int = field(
        default=65536,
        metadata=_about(
            "Files that each process of a run may have open; the coordinator's own hard limit is"
            " never exceeded.",
            parse_count,
        ),
    )
    job_disk_bytes: int = field(
        default=0,
        metadata=_about(
            "What a run may write to its working directory, its output, its /tmp and its metrics"
            " file together, files that it has open and removed included; half of the disk that"
            " holds data_dir unless given. Checkpoints do not count.",
            parse_size,
            example="200GiB",
        ),
    )
    job_checkpoint_bytes: int = field(
        default=0,
        metadata=_about(
            "What a job's checkpoints may take together while it runs; 0 sets no bound.",
            parse_size_or_none,
            example="500GiB",
        ),
    )
    job_log_bytes: int = field(
        default=1024**3,
        metadata=_about(
            "What a job's log may take. Later lines are counted and left out, and the run goes on;"
            " 0 sets no bound.",
            parse_size_or_none,
        ),
    )
    job_metrics_bytes: int = field(
        default=1024**3,
        metadata=_about(
            "What a job's metrics may take. Later snapshots are counted and left out, and the run"
            " goes on; 0 sets no bound.",
            parse_size_or_none,
        ),
    )
    job_files: int = field(
        default=2_000_000,
        metadata=_about(
            "Files and directories that a run may make in these directories.", parse_count
        ),
    )
    memory_reserve: int = field(
        default=256 * 1024**2,
        metadata=_about(
            "Main memory that stays available on this machine. When less is left, the newest job"
            " that asked for no memory_bytes is ended, one at a time; 0 ends none.",
            parse_size_or_none,
        ),
    )
    max_message_bytes: int = field(
        default=16 * 1024 * 1024,
        metadata=_about("Largest request or answer; 8 MiB at least.", parse_message_size),
    )
    max_watches: int = field(
        default=10_000,
        metadata=_about(
            "WatchJob streams at the same time; a gateway opens one for each job that somebody"
            " watches there.",
            parse_count,
        ),
    )
    min_ping_interval: float = field(
        default=1.0,
        metadata=_about("How often a client may ping without being told off.", parse_seconds),
    )
    node_id: str = field(
        default="local", metadata=_about("What this machine is called.", parse_node_id)
    )
    cpus: int = field(
        default=0,
        metadata=_about(
            "Cores of this machine that jobs may ask for; all of them unless given. As many jobs"
            " that ask for none may run beside those.",
            parse_count,
            example="4",
        ),
    )
    virtual_nodes: tuple[NodeSpec, ...] = field(
        default=(),
        metadata=_about(
            "Nodes that are declared, not there: their GPUs are accounted, their jobs run here."
            " `<name>:<count>x<GPU type>`, then any of `:cpus=`, `:memory=` and labels.",
            parse_virtual_nodes,
            example="a100-1:8xA100-80GB:zone=a",
            separator=",",
        ),
    )

    @property
    def drive_root(self) -> Path:
        """The local ScaiDrive."""
        return self.drive_dir or self.data_dir / "drive"

    @property
    def atlas_root(self) -> Path:
        """The local ScaiAtlas."""
        return self.atlas_dir or self.data_dir / "atlas"

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], *, file: Path | None = None
    ) -> "CoordinatorConfig":
        """From a TOML file and from `SCAIMIND_COORDINATOR_*`, which wins.

        The file is `file`, or else the one that SCAIMIND_COORDINATOR_CONFIG
        names. An empty variable counts as not set. Raises BadConfig with one
        line that names the variable or the key.
        """
        if file is None and (named := environ.get(FILE_VARIABLE)):
            file = Path(named)
        given: dict[str, Any] = {"data_dir": Path("var/coordinator").absolute()}
        if file is not None:
            given |= _from_file(file)
        given |= _from_variables(environ)
        if "api_secret" not in given:
            raise BadConfig(f"{PREFIX}API_SECRET: it is not set; the gateway must have the same")
        config = cls(**given)
        config.check()
        return config

    def check(self) -> None:
        """Raise BadConfig unless the settings fit together."""
        cert, key = self.listen_tls_cert_file, self.listen_tls_key_file
        if (cert is None) is not (key is None):
            raise BadConfig("listen_tls_cert_file and listen_tls_key_file: give both or neither")
        if self.listen_tls_client_ca_file is not None and cert is None:
            raise BadConfig("listen_tls_client_ca_file: it needs listen_tls_cert_file")
        if bool(self.jwks_url) is not bool(self.token_issuer):
            raise BadConfig("jwks_url and token_issuer: give both or neither")


def is_secret(setting: "Field[Any]") -> bool:
    """Whether a setting is kept out of everything that is shown, and may be read from a file."""
    return not setting.repr


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {}
    for setting in fields(CoordinatorConfig):
        variable = PREFIX + setting.name.upper()
        about = setting.metadata
        if is_secret(setting) and (file := environ.get(f"{variable}_FILE")):
            given[setting.name] = _parsed(f"{variable}_FILE", about["parse"], read_secret, file)
        elif text := environ.get(variable, ""):
            given[setting.name] = _parsed(variable, about["parse"], str, text)
    return given


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: it is not TOML: {error}") from None
    every = fields(CoordinatorConfig)
    settings = {setting.name: setting.metadata for setting in every}
    files = {f"{setting.name}_file": setting.name for setting in every if is_secret(setting)}
    given = {}
    for key, value in document.items():
        where = f"{path}: {key}"
        if key in files:
            parse = settings[files[key]]["parse"]
            given[files[key]] = _parsed(where, parse, read_secret, _text(where, value, ""))
        elif key in settings:
            about = settings[key]
            text = _text(where, value, about["separator"])
            given[key] = _parsed(where, about["parse"], str, text)
        else:
            close = difflib.get_close_matches(key, [*settings, *files], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise BadConfig(f"{where}: there is no such setting{hint}")
    return given


def _text(where: str, value: Any, separator: str) -> str:
    """A TOML value as the text that a variable would have."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if separator and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return separator.join(value)
    kinds = "a list of texts" if separator else "a text or a number"
    raise BadConfig(f"{where}: it is not {kinds}")


def _parsed(where: str, parse: Callable[[str], Any], read: Callable[[str], str], given: str) -> Any:
    try:
        return parse(read(given))
    except ValueError as error:
        raise BadConfig(f"{where}: {error}") from None
