"""An environment once everything is installed: the stubs go, and nothing in it can be written."""

import os
import sys
import venv
from pathlib import Path

import pytest

from app.coordinator.packages.base import Base, Distribution, find_base
from app.coordinator.packages.finishing import BadEnvironment, finish, packages_of

BASE = Base(
    (
        Distribution("based", "1.5+cu1", "Metadata-Version: 2.1\nName: based\nVersion: 1.5+cu1\n"),
        Distribution("two-words", "2.0", "Metadata-Version: 2.1\nName: two_words\nVersion: 2.0\n"),
    ),
    ("/nowhere",),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
    BASE.add_to(packages_of(root))
    return root


def installed(root: Path, name: str, installer: str = "uv") -> Path:
    about = packages_of(root) / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "INSTALLER").write_text(installer)
    return about


def test_stubs_go_and_what_was_installed_stays(root: Path) -> None:
    packages = packages_of(root)
    assert {each.name for each in packages.glob("*.dist-info")} == {
        *("based-1.5+cu1.dist-info", "two_words-2.0.dist-info"),
    }
    installed(root, "Own_Package")
    # One of the base's in the place of its stub, as a URL can have it.
    (packages / "two_words-2.0.dist-info/INSTALLER").write_text("uv")

    found = finish(root, files=10_000)

    assert found.names == {"own-package", "two-words"}
    assert not (packages / "based-1.5+cu1.dist-info").exists()
    assert found.size_bytes > 0
    assert BASE.constraints == "based==1.5+cu1\ntwo-words==2.0\n"


def test_everybody_reads_it_and_nobody_writes(root: Path) -> None:
    program = root / "bin/program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o4700)
    secret = packages_of(root) / "secret.py"
    secret.write_text("")
    secret.chmod(0o200)

    finish(root, files=10_000)

    assert program.stat().st_mode & 0o7777 == 0o555
    assert secret.stat().st_mode & 0o7777 == 0o444
    for folder, _, names in os.walk(root):
        for name in [folder, *(os.path.join(folder, each) for each in names)]:
            if not os.path.islink(name):
                assert not os.stat(name).st_mode & 0o222


@pytest.mark.parametrize("what", ["pipe", "moved", "link", "too many"])
def test_what_cannot_be_used_is_refused(root: Path, what: str) -> None:
    packages = packages_of(root)
    if what == "pipe":
        os.mkfifo(packages / "pipe")
    elif what == "too many":
        for number in range(60):
            (packages / str(number)).touch()
    else:
        packages.rename(root / "elsewhere")
        if what == "link":
            packages.symlink_to(root / "elsewhere")
    with pytest.raises(BadEnvironment):
        finish(root, files=50)


def test_links_are_left_alone(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (packages_of(root) / "leads-out").symlink_to(outside)
    (packages_of(root) / "based-9.dist-info").symlink_to(outside)

    finish(root, files=10_000)

    assert outside.stat().st_mode & 0o777 == 0o700


def test_the_base_is_this_pythons(tmp_path: Path) -> None:
    base = find_base()
    by_name = {each.name: each.version for each in base.distributions}
    assert "grpcio" in by_name
    assert all(each.startswith(sys.prefix) for each in base.directories)
    assert base.digest == find_base().digest
    assert Base(base.distributions[1:], base.directories).digest != base.digest
    newer = Distribution("new", "1", "")
    assert Base((*base.distributions, newer), base.directories).digest != base.digest
