"""What the files of requirements say: which other files count, and what is settled."""

from pathlib import Path

import pytest

from app.coordinator.packages.requirement_files import (
    BadRequirements,
    Requirements,
    read_requirements,
)
from app.files.directory import Directory


def read(path: Path, name: str = "requirements.txt") -> Requirements:
    with Directory.open(path) as project:
        return read_requirements(project, name)


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
