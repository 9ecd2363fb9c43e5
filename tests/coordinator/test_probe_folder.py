"""Coordinators that share a data directory find out at the same time how runs are kept apart."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.coordinator.isolation.probe import _directory


def test_they_do_not_take_each_others_folder_away(tmp_path: Path) -> None:
    def probe(number: int) -> str:
        with _directory(tmp_path, None) as (work, _):
            mark = Path(work, "mark")
            assert not mark.exists()
            mark.write_text(str(number))
            return mark.read_text()

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(probe, range(64)))
    assert found == [str(number) for number in range(64)]
    assert [path.name for path in tmp_path.iterdir()] == ["probe.lock"]
