"""What a driver says that finds no node of Ray on its machine."""

import pytest

from app.coordinator.engines.ray.own_node import commands, why_not_joined

RAYLET = ["/venv/lib/ray/core/src/ray/raylet/raylet", "--node_id=1"]


@pytest.mark.parametrize("others", [[], [[]], [["python", "raylet.py"]], [["/bin/sh", "raylet"]]])
def test_without_a_node_it_says_how_to_start_one(others: list[list[str]]) -> None:
    said = why_not_joined("head:6379", others)
    assert "ray start --address=head:6379 --num-cpus=0" in said


def test_with_a_node_the_reason_is_another_one() -> None:
    assert why_not_joined("head:6379", [["python"], RAYLET]) == ""


def test_this_process_is_seen() -> None:
    assert any("pytest" in " ".join(words) for words in commands())
