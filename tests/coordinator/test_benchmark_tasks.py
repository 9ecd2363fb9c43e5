"""The folder of a task of lm-evaluation-harness, looked at when an evaluation is submitted."""

from pathlib import Path

import pytest

from app.coordinator.data.drive import Drive
from app.coordinator.errors import FailedPrecondition
from app.coordinator.evaluations.benchmark_data import check_task
from app.coordinator.identity.access import Access


def test_a_folder_has_one_task_and_is_not_listed_beyond_a_bound(tmp_path: Path) -> None:
    task = tmp_path / "drive/t/task"
    task.mkdir(parents=True)
    (task / "one.yaml").write_text("task: one\n")
    drive = Drive(tmp_path / "drive")

    def check() -> None:
        check_task(drive, Access("t"), "benchmarks[0].dataset", "scaidrive://t/task")

    check()
    for number in range(1000):
        (task / f"{number}.txt").touch()
    with pytest.raises(FailedPrecondition, match="more than 1000 entries"):
        check()
