"""Locks and secrets of a data directory."""

import errno
import os
import stat
from pathlib import Path

import pytest

from app.local.data_dir import CannotStart, DataDir, kept_secret, write_secret
from app.local.postgres import dsn, running_dsn


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    with (
        data_dir.taken(),
        pytest.raises(CannotStart, match=rf"in use by another run \(process {os.getpid()}\)"),
    ):
        DataDir(tmp_path).taken().__enter__()
    with data_dir.taken():
        pass


def test_the_childrens_lock_lasts_as_long_as_its_last_holder(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    with data_dir.children_lock() as first:
        assert first.taken()
        inherited = os.dup(first.descriptor)
    with data_dir.children_lock() as second:
        assert not second.taken()
        os.close(inherited)
        assert second.taken()


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = kept_secret(path)
    assert len(first) > 40
    assert kept_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_secret(path, "another")
    assert kept_secret(path) == "another"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_directories_are_private(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "a" / "b")
    data_dir.prepare()
    data_dir.prepare()
    assert stat.S_IMODE(data_dir.root.stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE(data_dir.drive.stat().st_mode) == 0o700


def test_the_database_of_a_run_is_found(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    assert running_dsn(data_dir) is None
    data_dir.postgres.mkdir()
    pid_file = data_dir.postgres / "postmaster.pid"
    pid_file.write_text("1\n/data\n2\n5432\n")
    assert running_dsn(data_dir) is None
    pid_file.write_text("1\n/data\n2\n5432\n/a b/run\n\n 3\nready\n")
    data_dir.postgres_password.write_text("word\n")
    expected = dsn(Path("/a b/run"), password="word")
    assert running_dsn(data_dir) == expected
    assert "host=%2Fa%20b%2Frun" in expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("foreign", ["api-key", "logs", "logs/gateway.log", "."])
def test_what_belongs_to_another_user_is_named(tmp_path: Path, foreign: str) -> None:
    data_dir = DataDir(tmp_path)
    data_dir.prepare()
    for path in (data_dir.api_key, data_dir.logs / "gateway.log"):
        path.touch()
    os.chown(tmp_path / foreign, 65534, 65534)
    name = data_dir.api_key if foreign == "api-key" else data_dir.logs / "gateway.log"
    error = PermissionError(errno.EACCES, "Permission denied", str(name))
    assert data_dir.holds(error.filename)
    said = str(data_dir.not_usable(error))
    assert f"{tmp_path / foreign} belongs to another user. Run as that user" in said
    assert "SCAIMIND_DATA_DIR" in said


def test_a_full_disk_has_its_own_remedy(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "lock"))
    assert "Free some space" in str(DataDir(tmp_path).not_usable(error))
    assert not DataDir(tmp_path).holds("/etc/passwd")
