"""The data directory: where everything lives that has to survive a restart."""

import errno
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class CannotStart(Exception):
    """The stack cannot start; the text is one line for the person at the terminal."""


class DataDir:
    """The places in a data directory, and the right to use it.

    `lock` is held by the one supervisor; `lock.children` by whatever that
    supervisor started, for as long as any of it lives.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.api_key = self.root / "api-key"
        self.coordinator = self.root / "coordinator"
        self.coordinator_secret = self.root / "coordinator-secret"
        self.drive = self.root / "drive"
        self.issuer = self.root / "issuer"
        self.issuer_secret = self.root / "issuer-client-secret"
        self.issuer_url = self.root / "issuer-url"
        self.logs = self.root / "logs"
        self.postgres = self.root / "postgres"
        self.postgres_password = self.root / "postgres-password"

    def prepare(self) -> None:
        """Make the directories. Raises `CannotStart` if they cannot be made and written to."""
        # As root, PostgreSQL runs as another user, who has to pass through.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            self.root.mkdir(mode=mode, parents=True, exist_ok=True)
            for path in (self.coordinator, self.drive, self.issuer, self.logs):
                path.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"0" * 4096)
        except OSError as error:
            raise self.not_usable(error) from error

    def not_usable(self, error: OSError) -> CannotStart:
        """Return what to say of an error with something in this directory."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space, or set SCAIMIND_DATA_DIR to a directory elsewhere."
        elif (foreign := self._of_another_user(error.filename)) is not None:
            remedy = (
                f"{foreign} belongs to another user. "
                "Run as that user, or set SCAIMIND_DATA_DIR to another directory."
            )
        else:
            remedy = "Set SCAIMIND_DATA_DIR to a directory that you can write to."
        return CannotStart(
            f"The data directory {self.root} is not usable: {error.strerror}. {remedy}"
        )

    def holds(self, name: object) -> bool:
        """Return whether a file's name, as an `OSError` has it, is in this directory."""
        return isinstance(name, str) and Path(name).is_relative_to(self.root)

    def _of_another_user(self, name: object) -> Path | None:
        """Return what on the way from this directory to a path belongs to another user."""
        if not isinstance(name, str) or not self.holds(name):
            return None
        path = Path(name)
        for each in (*reversed(path.relative_to(self.root).parents), path.relative_to(self.root)):
            with suppress(OSError):
                if (self.root / each).stat().st_uid != os.geteuid():
                    return self.root / each
        return None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the directory alone. Raises `CannotStart` if another supervisor has it."""
        with _lock_file(self.root / "lock") as descriptor:
            if not _try_lock(descriptor):
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise CannotStart(
                    f"The data directory {self.root} is in use by another run (process {holder}). "
                    "Stop that run, or set SCAIMIND_DATA_DIR to another directory."
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield

    @contextmanager
    def children_lock(self) -> Iterator["ChildrenLock"]:
        """Open the lock that children inherit."""
        with _lock_file(self.root / "lock.children") as descriptor:
            yield ChildrenLock(descriptor)


class ChildrenLock:
    """Taken once here, and then held by everyone who inherits `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def taken(self) -> bool:
        """Try to take it; False while children of an earlier supervisor live."""
        return _try_lock(self.descriptor)


def kept_secret(path: Path) -> str:
    """Read the secret that a file holds, and make both at the first time."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(32)
        write_secret(path, secret)
        return secret


def write_secret(path: Path, secret: str) -> None:
    """Write a file for its owner's eyes, there whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    # flock, not fcntl's record locks: it belongs to the open file, so that it
    # is inherited with the descriptor.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
