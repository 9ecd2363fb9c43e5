"""What a packed working directory may hold, and what a hostile one cannot do."""

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.coordinator.data.archives.extraction import extract
from app.coordinator.data.archives.unpacked_tar import BadArchive
from app.coordinator.data.archives.unpacking import Unpacker
from app.coordinator.isolation.system_paths import system_paths
from app.files.copying import Abandoned
from app.files.directory import Directory
from app.files.walking import Limits

LIMITS = Limits(entries=20, size_bytes=100_000)

Add = Callable[[tarfile.TarFile], None]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Add:
    def add(archive: tarfile.TarFile) -> None:
        about = tarfile.TarInfo(name)
        about.size, about.mode = len(content), mode
        archive.addfile(about, io.BytesIO(content))

    return add


def entry(name: str, kind: bytes, leads_to: str = "") -> Add:
    def add(archive: tarfile.TarFile) -> None:
        about = tarfile.TarInfo(name)
        about.type, about.linkname = kind, leads_to
        archive.addfile(about)

    return add


def packed(*members: Add, **options: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", **options) as archive:  # type: ignore[call-overload]
        for add in members:
            add(archive)
    return content.getvalue()


def unpack(content: bytes, path: Path, limits: Limits = LIMITS) -> dict[str, str]:
    """What is below the directory then: files with their content, links with where they lead."""
    target = path / "target"
    target.mkdir()
    with Directory.open(target) as directory:
        extract(io.BytesIO(content), directory, limits=limits)
    return {
        str(each.relative_to(target)): f"-> {each.readlink()}"
        if each.is_symlink()
        else each.read_text()
        for each in sorted(target.rglob("*"))
        if each.is_symlink() or not each.is_dir()
    }


def test_files_directories_and_links_within_are_unpacked(tmp_path: Path) -> None:
    long = "/".join(["d" * 100] * 3) + "/" + "f" * 200

    found = unpack(
        packed(
            entry("./", tarfile.DIRTYPE),
            entry("src", tarfile.DIRTYPE),
            file("./src/train.py", b"1", 0o4755),
            file("src//lib/helper.py", b"2"),
            entry("src", tarfile.DIRTYPE),
            entry("again.py", tarfile.LNKTYPE, "src/train.py"),
            entry("data/current", tarfile.SYMTYPE, "../src/lib"),
            entry("dangling", tarfile.SYMTYPE, "not/there"),
            entry("circle", tarfile.SYMTYPE, "circle"),
            file(long, b"3"),
        ),
        tmp_path,
    )

    assert found == {
        "again.py": "1",
        "src/train.py": "1",
        "src/lib/helper.py": "2",
        "data/current": "-> ../src/lib",
        "dangling": "-> not/there",
        "circle": "-> circle",
        long: "3",
    }
    mode = (tmp_path / "target/src/train.py").stat().st_mode
    assert mode & 0o7777 == 0o755
    assert not (tmp_path / "target/src/lib/helper.py").stat().st_mode & 0o111


HOSTILE = {
    "an absolute path": ([file("/etc/evil")], "leads out"),
    "a path that leads up": ([file("a/../../evil")], "leads out"),
    "a path that only seems to lead up": ([file("a/../evil")], "leads out"),
    "no name": ([file("./")], "no name"),
    "a part that is too long": ([file("n" * 256)], "more than 255 bytes"),
    "a link out": ([entry("l", tarfile.SYMTYPE, "../outside")], "leads out"),
    "an absolute link": ([entry("l", tarfile.SYMTYPE, "/etc")], "leads out"),
    "a link out from below": ([entry("a/b/l", tarfile.SYMTYPE, "../../../x")], "leads out"),
    "a link out by way of another": (
        [entry("here", tarfile.SYMTYPE, "."), entry("up", tarfile.SYMTYPE, "here/..")],
        "leads out",
    ),
    "a link to nothing": ([entry("l", tarfile.SYMTYPE, "")], "leads nowhere"),
    "a file through a link": (
        [entry("l", tarfile.SYMTYPE, "."), file("l/evil")],
        "through a link of its own",
    ),
    "a link in the place of a directory": (
        [file("d/f"), entry("d", tarfile.SYMTYPE, ".")],
        "twice",
    ),
    "a link in the place of a file": ([file("f"), entry("f", tarfile.SYMTYPE, ".")], "twice"),
    "a file in the place of a link": ([entry("f", tarfile.SYMTYPE, "."), file("f")], "twice"),
    "a hard link out": ([entry("l", tarfile.LNKTYPE, "../../etc/passwd")], "leads out"),
    "an absolute hard link": ([entry("l", tarfile.LNKTYPE, "/etc/passwd")], "leads out"),
    "a hard link to nothing": ([entry("l", tarfile.LNKTYPE, "later"), file("later")], "before it"),
    "a hard link to a link": (
        [entry("s", tarfile.SYMTYPE, "."), entry("l", tarfile.LNKTYPE, "s")],
        "before it",
    ),
    "a device": ([entry("d", tarfile.CHRTYPE)], "device"),
    "a block device": ([entry("d", tarfile.BLKTYPE)], "device"),
    "a named pipe": ([entry("p", tarfile.FIFOTYPE)], "device"),
    "a name twice": ([file("f"), file("./f")], "twice"),
    "a file that is a directory": ([file("f"), file("f/g")], "both a file and a directory"),
    "a directory that is a file": ([file("f/g"), file("f")], "twice"),
    "too many files": ([file(f"f{number}") for number in range(21)], "more than 20 entries"),
    "too many directories": ([file("/".join("abcdefghijklmnopqrstuvwxyz"))], "more than 20"),
    "too much": ([file("f", b"x" * 50_001), file("g", b"x" * 50_000)], "more than 100000 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_has_no_place_there_refuses_the_archive(name: str, tmp_path: Path) -> None:
    members, reason = HOSTILE[name]

    with pytest.raises(BadArchive, match=reason):
        unpack(packed(*members), tmp_path)

    assert {each.name for each in tmp_path.iterdir()} == {"target"}


def test_directories_deeper_than_the_bound_are_refused(tmp_path: Path) -> None:
    deep = packed(file("/".join("abcde")))

    with pytest.raises(BadArchive, match="more than 4 directories deep"):
        unpack(deep, tmp_path, Limits(depth=4))


def header(kind: bytes, size: int) -> bytes:
    about = tarfile.TarInfo("././@LongLink")
    about.type, about.size = kind, size
    return about.tobuf(format=tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_says_it_is_huge_is_not_read(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="header of more than"):
        unpack(gzip.compress(header(kind, 8 * 1024**3)), tmp_path)


def test_a_file_that_is_larger_than_its_bound_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    about = tarfile.TarInfo("f")
    about.size = 1 << 40

    with pytest.raises(BadArchive, match="more than 100000 bytes"):
        unpack(gzip.compress(about.tobuf()), tmp_path)


def test_headers_without_end_are_bounded(tmp_path: Path) -> None:
    # Thirty megabytes of nothing but global headers, in as many kilobytes.
    bomb = gzip.compress(header(tarfile.XGLTYPE, 0) * 60_000)

    with pytest.raises(BadArchive):
        unpack(bomb, tmp_path)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    about = tarfile.TarInfo("f")
    about.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(about.tobuf(format=tarfile.GNU_FORMAT))
    # One piece of 1 byte at the end of a terabyte (tar(5), GNU sparse).
    head[386:398], head[398:410] = b"17777777777\0", b"00000000001\0"
    head[483:495] = b"17777777777\0"
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)

    with pytest.raises(BadArchive):
        unpack(gzip.compress(bytes(head) + b"x" * 512), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        gzip.compress(b"no tar" * 200),
        packed(file("f", os.urandom(4000)))[:2000],
        packed(file("f"))[:-4] + b"\0\0\0\0",
        gzip.compress(b"\xff" * 2000),
        packed(file("f", os.urandom(4000)))[:-600],
    ],
)
def test_what_is_no_archive_or_damaged_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadArchive):
        unpack(content, tmp_path)


def test_a_name_that_is_not_utf8_stays_as_it_is(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.py")

    assert unpack(packed(file(name)), tmp_path) == {name: "x"}


@pytest.fixture
def unpacker() -> Unpacker:
    return Unpacker(readable=system_paths([]), limits=LIMITS)


def test_a_worker_unpacks_it(unpacker: Unpacker, tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "target"
    archive.write_bytes(packed(file("d/f", b"content")))
    target.mkdir()

    with open(archive, "rb") as content, Directory.open(target) as directory:
        unpacker.unpack(content, directory, threading.Event())

    assert (target / "d/f").read_text() == "content"


def test_a_worker_says_what_is_wrong(unpacker: Unpacker, tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "target"
    archive.write_bytes(packed(file("../evil")))
    target.mkdir()

    with (
        open(archive, "rb") as content,
        Directory.open(target) as directory,
        pytest.raises(BadArchive, match=r"'\.\./evil' leads out of it"),
    ):
        unpacker.unpack(content, directory, threading.Event())


def test_unpacking_can_be_given_up(unpacker: Unpacker, tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "target"
    archive.write_bytes(packed(file("f")))
    target.mkdir()
    abandoned = threading.Event()
    abandoned.set()

    with (
        open(archive, "rb") as content,
        Directory.open(target) as directory,
        pytest.raises(Abandoned),
    ):
        unpacker.unpack(content, directory, abandoned)


def test_an_archive_that_is_larger_than_its_content_may_be_is_not_read(
    unpacker: Unpacker, tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar.gz"
    with open(archive, "wb") as sparse:
        sparse.truncate(LIMITS.size_bytes + 1)

    with (
        open(archive, "rb") as content,
        Directory.open(tmp_path) as directory,
        pytest.raises(BadArchive, match="more than 100000 bytes"),
    ):
        unpacker.unpack(content, directory, threading.Event())
