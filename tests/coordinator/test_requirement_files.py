"""What the files of requirements say: which other files count, and what is settled."""

import threading
from pathlib import Path
from typing import Any

import pytest

from app.coordinator.packages.requirement_files import (
    BadRequirements,
    Requirements,
    read_requirements,
)
from app.files.copying import Abandoned
from app.files.directory import Directory


def read(path: Path, name: str = "requirements.txt") -> Requirements:
    with Directory.open(path) as project:
        return read_requirements(project, name, threading.Event())


def written(path: Path, **files: str) -> Path:
    for name, text in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def test_what_is_pinned(tmp_path: Path) -> None:
    text = """
        # a comment
        Exact_Name==1.0
        extras[a, b] == 2.0 ; python_version > "3"
        hashed==1 \\
            --hash=sha256:00 --hash=sha256:11
        arbitrary===1.0+local   # another
        loose>=1
        open
        star==1.*
        several==1,!=1.1
        -c constraints.txt
        ./own_wheel-3.0-py3-none-any.whl
    """
    written(tmp_path, **{"requirements.txt": "\n".join(map(str.strip, text.splitlines()))})
    written(tmp_path, **{"constraints.txt": "open==4", "own_wheel-3.0-py3-none-any.whl": ""})

    assert read(tmp_path).pinned == {
        *("exact-name", "extras", "hashed", "arbitrary", "open", "own-wheel"),
    }


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-r more/base.txt", "more/base.txt"),
        ("-rmore/base.txt", "more/base.txt"),
        ("--requirement=more/base.txt", "more/base.txt"),
        ("--constraint more/base.txt", "more/base.txt"),
        ("./pack/x-1.0-py3-none-any.whl", "pack/x-1.0-py3-none-any.whl"),
        ("pack/x-1.0.tar.gz", "pack/x-1.0.tar.gz"),
        ("x @ ./pack/x-1.0.tar.gz ; python_version > '3'", "pack/x-1.0.tar.gz"),
        ("x @ file:pack/x.zip", "pack/x.zip"),
        ("./own[extra]", "own/pyproject.toml"),
        (".", "anything.py"),
        ("--find-links ./wheels", "wheels/x.whl"),
        ("-f wheels", "wheels/deep/x.whl"),
    ],
)
def test_what_a_line_names_of_the_project_counts(tmp_path: Path, line: str, named: str) -> None:
    written(tmp_path, **{"requirements.txt": f"{line}\n", named: "old"})
    before = read(tmp_path).digest
    assert read(tmp_path).digest == before
    written(tmp_path, **{"other.py": "nothing to do with it"})
    if line != ".":
        assert read(tmp_path).digest == before
    written(tmp_path, **{named: "new"})

    assert read(tmp_path).digest != before


def test_files_are_read_from_where_they_are(tmp_path: Path) -> None:
    written(
        tmp_path,
        **{
            "deep/requirements.txt": "-r ../base.txt\n-r sub/a.txt\n",
            "base.txt": "a==1",
            "deep/sub/a.txt": "b==1\n-r a.txt\n-r ../requirements.txt\n",
        },
    )

    assert read(tmp_path, "deep/requirements.txt").pinned == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-r missing.txt", "'missing.txt' is not a file"),
        ("-r link.txt", "'link.txt' is not a file"),
        ("-r folder", "'folder' is not a file"),
        ("-r ../outside.txt", "leads out of the working directory"),
        ("-c /etc/passwd", "leads out of the working directory"),
        ("-e .", "without -e"),
        ("--editable=./own", "without -e"),
        ("x" * (1024 * 1024 + 1), "more than 1048576 bytes"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    written(tmp_path, **{"requirements.txt": text, "folder/x": ""})
    (tmp_path / "link.txt").symlink_to("/etc/passwd")

    with pytest.raises(BadRequirements, match=reason):
        read(tmp_path)


def test_files_without_end_are_refused(tmp_path: Path) -> None:
    written(tmp_path, **{f"{n}.txt": f"-r {n + 1}.txt" for n in range(70)})

    with pytest.raises(BadRequirements, match="more than 64 files"):
        read(tmp_path, "0.txt")


def test_urls_and_names_are_no_places(tmp_path: Path) -> None:
    written(
        tmp_path,
        **{
            "requirements.txt": "https://example.com/x-1.0-py3-none-any.whl\n"
            "git+https://example.com/x\nx @ https://example.com/x.zip\n--index-url https://e/simple\n"
            "../outside.whl\n/etc/x.whl\n"
        },
    )

    assert read(tmp_path).pinned == set()


#: Lines of which a part fits again and again, so that one that looks back would look for hours.
TEDIOUS = (
    "a" + " " * 60_000 + "b",
    "a" + " " * 60_000 + "==1,",
    "./" + "[" * 60_000,
    "a[" + "[" * 60_000,
    "-r" + " " * 60_000 + "x",
    "-f" + " " * 60_000 + "=x",
    "a, " * 20_000 + "@",
    " #" * 30_000,
    "a==" + "1" * 60_000 + " " * 5 + "*",
)


@pytest.mark.parametrize("line", TEDIOUS, ids=range(len(TEDIOUS)))
def test_a_long_line_is_read_in_one_go(tmp_path: Path, line: str) -> None:
    """Each took seconds to hours, in which the coordinator did nothing else: `re` lets nobody."""
    written(tmp_path, **{"requirements.txt": f"{line}\nlast==1\n"})
    done = threading.Event()

    def reads() -> None:
        try:
            read(tmp_path)
        except BadRequirements:
            pass
        finally:
            done.set()

    threading.Thread(target=reads, daemon=True).start()
    assert done.wait(60)


def test_a_line_has_a_limit(tmp_path: Path) -> None:
    hashes = " \\\n".join(f"--hash=sha256:{number:064x}" for number in range(600))
    written(tmp_path, **{"requirements.txt": f"many==1 \\\n{hashes}\n"})
    assert read(tmp_path).pinned == {"many"}
    written(tmp_path, **{"requirements.txt": "x" * 65_537})
    with pytest.raises(BadRequirements, match="a line of more than 65536 characters"):
        read(tmp_path)


def test_what_many_lines_name_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_file = Directory.open_file

    def counted(self: Directory, name: str) -> Any:
        opened.append(name)
        return open_file(self, name)

    monkeypatch.setattr(Directory, "open_file", counted)
    lines = ["./large.tar.gz", "./././large.tar.gz", ".", "./deep", "./deep/../deep"] * 1000
    written(tmp_path, **{"requirements.txt": "\n".join(lines), "large.tar.gz": "x"})
    written(tmp_path, **{"deep/other.zip": "y"})
    read(tmp_path)
    assert opened.count("large.tar.gz") == 1
    assert opened.count("other.zip") == 1


def test_reading_ends_when_nobody_wants_it(tmp_path: Path) -> None:
    written(tmp_path, **{"requirements.txt": "a\n"})
    abandoned = threading.Event()
    abandoned.set()
    with Directory.open(tmp_path) as project, pytest.raises(Abandoned):
        read_requirements(project, "requirements.txt", abandoned)


@pytest.mark.parametrize("line", ["-e .", "-e.", "-e_folder", "--editable=.", "--editable_x"])
def test_nothing_editable_however_it_is_written(tmp_path: Path, line: str) -> None:
    written(tmp_path, **{"requirements.txt": f"{line}\n"})
    with pytest.raises(BadRequirements, match="without -e"):
        read(tmp_path)


@pytest.mark.parametrize("line", ["-r " + "n" * 300, "-c a/" + "n" * 300 + "/b"])
def test_a_name_that_no_file_can_have_is_the_owners_fault(tmp_path: Path, line: str) -> None:
    """It was an error of the machine's, for which the job was tried again and again."""
    written(tmp_path, **{"requirements.txt": f"{line}\n"})
    with pytest.raises(BadRequirements, match="is not a file"):
        read(tmp_path)
    written(tmp_path, **{"requirements.txt": f"./{'n' * 300}.whl\n-f {'n' * 300}\n"})
    assert read(tmp_path).pinned == set()
