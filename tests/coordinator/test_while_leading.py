"""Work of many steps ends between two of them once its coordinator no longer leads."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from typing_extensions import override

from app.coordinator.execution.bucket.led_store import LedStore
from app.coordinator.failures import LeadershipLost
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.leadership.while_leading import WhileLeading
from app.files.copying import copy_tree
from app.files.directory import Directory
from app.files.removing import remove_tree
from app.files.walking import Limits
from app.objects.store import ObjectStore


@dataclass
class Lead(Leadership):
    """It is lost after so many checks."""

    checks: int

    @property
    @override
    def term(self) -> int:
        return 1

    @override
    def check(self) -> None:
        self.checks -= 1
        if self.checks < 0:
            raise LeadershipLost("another one leads")

    @override
    def lose(self, reason: str) -> None:
        self.checks = 0


def test_it_is_set_as_the_other_one_is(tmp_path: Path) -> None:
    abandoned = threading.Event()
    wanted = WhileLeading(abandoned, Lead(checks=3))
    assert not wanted.is_set()
    abandoned.set()
    assert wanted.is_set()
    assert wanted.wait(60)
    with pytest.raises(LeadershipLost):
        wanted.is_set()


def test_a_copy_and_a_removal_end_between_two_files(tmp_path: Path) -> None:
    for folder in ("source", "target"):
        (tmp_path / folder).mkdir()
    for name in "abcd":
        (tmp_path / "source" / name).write_text(name)
    wanted = WhileLeading(threading.Event(), Lead(checks=4))
    with (
        Directory.open(tmp_path / "source") as source,
        Directory.open(tmp_path / "target") as target,
        pytest.raises(LeadershipLost),
    ):
        copy_tree(source, target, wanted, limits=Limits())
    assert 0 < len(list((tmp_path / "target").iterdir())) < 4
    wanted = WhileLeading(threading.Event(), Lead(checks=2))
    with Directory.open(tmp_path) as top, pytest.raises(LeadershipLost):
        remove_tree(top, "source", wanted)
    assert 0 < len(list((tmp_path / "source").iterdir())) < 4


@dataclass
class Store:
    """Notes what it is asked to change."""

    changed: list[str] = field(default_factory=list)

    def write(self, key: str, content: bytes) -> None:
        self.changed.append(key)

    def upload(self, key: str, source: int, abandoned: threading.Event) -> None:
        while not abandoned.is_set():
            self.changed.append(key)

    def remove(self, keys: Iterable[str]) -> None:
        self.changed.extend(keys)

    def read(self, key: str, *, limit: int) -> bytes:
        return b"there"


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.write("a", b""),
        lambda store: store.upload("a", 0, threading.Event()),
        lambda store: store.remove(["a"]),
        lambda store: store.uploads,
    ],
    ids=["write", "upload", "remove", "uploads"],
)
def test_a_store_is_changed_by_who_leads_alone(change: Callable[[Any], object]) -> None:
    store = Store()
    led = LedStore(cast(ObjectStore, store), Lead(checks=0))
    with pytest.raises(LeadershipLost):
        change(led)
    assert store.changed == []
    assert led.read("a", limit=9) == b"there"


def test_an_upload_and_a_removal_end_in_the_middle() -> None:
    store = Store()
    with pytest.raises(LeadershipLost):
        LedStore(cast(ObjectStore, store), Lead(checks=3)).upload("a", 0, threading.Event())
    with pytest.raises(LeadershipLost):
        LedStore(cast(ObjectStore, store), Lead(checks=1)).remove(["b", "c"])
    assert store.changed == ["a", "a", "b"]
