"""Which files of a folder are sent: what git would let through, and never a secret."""

import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

from scaimind.selection import SelectionFailed, select


def make(root: Path, **files: str) -> Path:
    for name, text in files.items():
        put(root, name, text)
    return root


def put(root: Path, name: str, text: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(root: Path) -> list[str]:
    return [each.name for each in select(root).files]


def test_secrets_repositories_and_environments_are_never_sent(tmp_path: Path) -> None:
    for name in (
        ".git/config", ".env", ".env.local", "sub/.envrc", ".venv/bin/python", "env/pyvenv.cfg",
        "env/lib/x.py", "__pycache__/x.pyc", "train.py", "sub/model.py", ".gitattributes",
    ):  # fmt: skip
        put(tmp_path, name)
    put(tmp_path, ".scaimindignore", "!.env\n!.git\n!.venv\n")
    assert names(tmp_path) == [".gitattributes", "sub/model.py", "train.py"]


def test_its_own_ignore_file_comes_last(tmp_path: Path) -> None:
    put(tmp_path, ".gitignore", "*.bin\nout/\n")
    put(tmp_path, ".scaimindignore", "!keep.bin\nnotes/\n")
    for name in ("a.bin", "keep.bin", "sub/keep.bin", "out/x", "notes/x", "train.py"):
        put(tmp_path, name)
    assert names(tmp_path) == [".gitignore", "keep.bin", "sub/keep.bin", "train.py"]


def test_the_repository_above_counts(tmp_path: Path) -> None:
    put(tmp_path, ".git/info/exclude", "mine.txt\n")
    put(tmp_path, ".gitignore", "*.log\n/jobs/big/\n")
    put(tmp_path, "jobs/.gitignore", "!keep.log\n")
    for name in ("a.log", "keep.log", "mine.txt", "big/x", "train.py"):
        put(tmp_path, f"jobs/{name}")
    assert names(tmp_path / "jobs") == [".gitignore", "keep.log", "train.py"]


def test_links_lead_to_what_is_sent_itself(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    put(tmp_path, "outside")
    for name in ("inside", ".env", "sub/x", "ignored"):
        put(folder, name)
    put(folder, ".gitignore", "ignored\n")
    for name, target in {
        "a": "inside", "b": "../outside", "c": ".env", "d": "nowhere", "e": "sub", "f": "ignored",
        "g": "g", "h": "/etc/passwd",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    found = select(folder)
    assert [each.name for each in found.files] == [".gitignore", "a", "inside", "sub/x"]
    assert [each.partition(":")[0] for each in found.left_out] == [
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
    ]


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path, "train.py")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
        found = select(tmp_path)
    assert [each.name for each in found.files] == ["train.py"]
    assert len(found.left_out) == 3


def test_a_folder_that_cannot_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(SelectionFailed):
        select(tmp_path / "nowhere")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaimind.selection.MAX_ENTRIES", 3)
    for number in range(4):
        put(tmp_path, str(number))
    with pytest.raises(SelectionFailed, match="scaimindignore"):
        select(tmp_path)


PATTERNS = (
    "*.log", "!a.log", "/b", "b/", "b/**", "!b/c", "**/c", "c/*", "!c/a.log", "d?", "[ab].txt",
    "#a", r"\#a", "a b", "a.log ", "**/d/**", "!**/d/a.log", "/c/d/", "*", "!*/", "!c", "!b",
)  # fmt: skip
PARTS = ("a.log", "b", "c", "d", "d1", "a.txt", "b.log", "#a", "a b")


@pytest.mark.parametrize("seed", range(8))
def test_it_chooses_as_git_does(seed: int, tmp_path: Path) -> None:
    rand = random.Random(seed)
    for _ in range(30):
        *folders, name = rand.choices(PARTS, k=rand.randrange(1, 4))
        if all(not (tmp_path / "/".join(folders[: n + 1])).is_file() for n in range(len(folders))):
            path = "/".join((*folders, name))
            if not (tmp_path / path).exists():
                put(tmp_path, path)
    for folder in ("", "b/", "c/"):
        if (tmp_path / folder).is_dir():
            text = "\n".join(rand.sample(PATTERNS, rand.randrange(1, 6)))
            put(tmp_path, f"{folder}.gitignore", f"{text}\n")
    git = ("git", "-C", str(tmp_path), "-c", "core.excludesFile=")
    subprocess.run((*git, "init", "-q"), check=True)
    listed = subprocess.run(
        (*git, "ls-files", "-zo", "--exclude-standard"), check=True, capture_output=True, text=True
    ).stdout
    assert names(tmp_path) == sorted(listed.split("\0")[:-1])
