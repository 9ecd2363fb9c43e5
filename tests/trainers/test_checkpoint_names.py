"""A checkpoint has its name when it is complete, and the newest ones stay."""

import os
from pathlib import Path

import pytest

from app.coordinator.execution.checkpoints import is_unfinished, step_of
from app.trainers.arguments import WRITING
from app.trainers.checkpoints import checkpoint_name, prune, publish, resumable
from app.trainers.errors import TrainingRefused


def written(folder: Path, text: str = "weights") -> Path:
    place = folder / WRITING / "checkpoint-7"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_text(text)
    return place


def test_what_is_being_written_is_none_for_the_coordinator() -> None:
    assert is_unfinished(WRITING)
    assert not is_unfinished(checkpoint_name(7))
    assert step_of(checkpoint_name(7)) == 7


def test_it_appears_as_a_whole(tmp_path: Path) -> None:
    place = publish(written(tmp_path), tmp_path, 7)
    assert place == tmp_path / "step-7"
    assert (place / "model.safetensors").read_text() == "weights"
    assert [*(tmp_path / WRITING).iterdir()] == []


def test_what_a_node_adds_to_the_first_ones_names_no_sizes_and_may_be_nothing(
    tmp_path: Path,
) -> None:
    beside = written(tmp_path)
    place = publish(beside, tmp_path, 7, is_part=True)
    assert [each.name for each in place.iterdir()] == ["model.safetensors"]
    # None of its ranks had anything to write.
    assert [*publish(beside, tmp_path, 8, is_part=True).iterdir()] == []


def test_one_that_is_written_anew_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    publish(written(tmp_path, "old"), tmp_path, 7)
    publish(written(tmp_path / "again", "new"), tmp_path, 7)
    assert (tmp_path / "step-7" / "model.safetensors").read_text() == "new"
    assert sorted(each.name for each in tmp_path.iterdir()) == [WRITING, "again", "step-7"]


def test_those_that_were_written_last_stay_whatever_their_step(tmp_path: Path) -> None:
    for age, step in enumerate([50, 60, 20, 30]):
        (tmp_path / f"step-{step}").mkdir()
        os.utime(tmp_path / f"step-{step}", (age, age))
    (tmp_path / "mine").mkdir()
    assert prune(tmp_path, 0) == []
    assert prune(tmp_path, 3) == ["step-50"]
    assert prune(tmp_path, 1) == ["step-60", "step-20"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine", "step-30"]


def test_what_no_trainer_wrote_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match="name it as the base model"):
        resumable(tmp_path, tmp_path)
    # As an earlier release wrote it.
    (tmp_path / "trainer_state.json").write_text("{}")
    assert resumable(tmp_path, tmp_path) == tmp_path


def complete(folder: Path, step: int) -> Path:
    beside = written(folder)
    (beside / "trainer_state.json").write_text("{}")
    place = publish(beside, folder, step)
    os.utime(place, (step, step))
    return place


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
def test_one_that_was_cut_in_half_gives_way_to_the_one_before(tmp_path: Path, name: str) -> None:
    first, second, third = (complete(tmp_path, step) for step in (10, 20, 30))
    assert resumable(third, tmp_path) == third
    for each in (third, second):
        (each / name).write_text("")
    assert resumable(third, tmp_path) == first
    (first / name).unlink()
    with pytest.raises(TrainingRefused, match=f"step-30' is damaged: {name}"):
        resumable(third, tmp_path)


def test_what_another_job_wrote_has_none_before_it(tmp_path: Path) -> None:
    complete(tmp_path, 10)
    last = complete(tmp_path, 20)
    (last / "model.safetensors").write_text("")
    with pytest.raises(TrainingRefused, match="there is no whole one before it"):
        resumable(last, tmp_path / "another")
