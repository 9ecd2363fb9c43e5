"""The disks below whose floor no job is taken up."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.coordinator.errors import Overloaded
from app.coordinator.storage.free_space import FreeSpace

MIB = 1024 * 1024


@pytest.mark.parametrize("full", ["data", "drive", "drive/acme"])
def test_each_disk_that_a_tenants_job_writes_to_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    for name in ("data", "drive/acme"):
        (tmp_path / name).mkdir(parents=True)

    def usage(folder: Path) -> SimpleNamespace:
        free = 1 if folder == tmp_path / full else 1000
        return SimpleNamespace(total=10_000 * MIB, free=free * MIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    space = FreeSpace((tmp_path / "data",), drive=tmp_path / "drive", floor=10 * MIB)
    with pytest.raises(Overloaded, match="1 MiB free"):
        space.check("acme")
    if full == "drive/acme":
        space.check("another")
