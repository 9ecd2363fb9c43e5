"""Which files a source has, in which format, and which of them belong to its split."""

import bz2
import codecs
import csv
import gzip
import lzma
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from ..errors import TrainingRefused, listed, shown
from ..job import Source

#: Most files of one source, and how deep its folders may be.
MAX_FILES: Final = 100_000
MAX_DEPTH: Final = 16
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")
_OPENERS: Final[Mapping[str, Callable[..., IO[Any]]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_FORMATS: Final = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
}
#: Splits whose records are held back, and their other names.
HELD_BACK: Final = ("validation", "valid", "val", "eval", "evaluation", "dev", "test")
_NAMES: Final = ("train", "training", *HELD_BACK)
#: What Hugging Face writes: a name, and of it all or a part in records or percent.
_SPLIT: Final = re.compile(r"([A-Za-z0-9_-]{1,64})(\[-?\d{0,15}%?:-?\d{0,15}%?\])?")
#: A line that is no record, but which JSON has.
_NULL: Final = re.compile(rb"\n[ \t\r]{0,16}null\b")
#: What says where in JSON a `null` stands: texts are skipped as a whole, also one that a file which
#: was cut ends in. It would be read anew from each of its quotes.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]|null', re.DOTALL)
#: What comes before a value that is within another one.
_INSIDE: Final = (b"[", b",", b":")
_BLOCK: Final = 1024 * 1024
_OVERLAP: Final = 32
_WORD: Final = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source that are read."""

    format: str
    paths: tuple[Path, ...]
    #: The part that is meant, such as `[:10%]`; empty for all.
    part: str
    #: Whether the records are for validation.
    held_back: bool


def source_files(source: Source) -> SourceFiles:
    """Return the files of a source, by name. Raises TrainingRefused.

    A folder's files belong to the split that their name or a folder's name has as a word
    (`train.jsonl`, `data/test-00000.parquet`). Where no file names a split, all are `train`.
    """
    name, part = _split(source)
    files = [*_files(source)]
    files = _of_split(source, files, name)
    formats = {source.format or _format(source, path) for path in files}
    if len(formats) > 1:
        raise TrainingRefused(
            f"data source {shown(source.path)}: its files have several formats"
            f" ({listed(sorted(formats))}); make a source of each"
        )
    return SourceFiles(formats.pop(), tuple(files), part, name in HELD_BACK)


def csv_columns(path: Path) -> list[str]:
    """Return the names in the first line of a CSV file. Raises OSError, ValueError."""
    opener = _OPENERS.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error as error:
            raise ValueError(str(error)) from None


def null_record(path: Path) -> int:
    """Return the number of the first line of a JSON file that is `null` where a record is to be;
    0 if there is none.

    The library that reads the rest of it crashes on such a line, and on a list of records that has
    one. A `null` within a record, as in a file that is written with indents, is none. Raises
    OSError, EOFError and what decompressors raise.
    """
    opener = _OPENERS.get(path.suffix.lower(), open)
    lines, kept, last = 1, b"\n", b""
    with opener(path, "rb") as file:
        head = file.read(_OVERLAP)
        if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            file.seek(0)
            # Its reader needs all of it at once as well.
            return _null_in_list(file.read())
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        while block := file.read(_BLOCK):
            text = kept + block
            for found in _NULL.finditer(text):
                if (_last_before(text, found.start()) or last) not in _INSIDE:
                    return lines + text.count(b"\n", 1, found.end())
            # What may be the beginning of such a line is looked at again.
            begin = max(len(text) - _OVERLAP, 0)
            last = _last_before(text, begin) or last
            kept = text[begin:]
            lines += text.count(b"\n", 1, begin + 1)
    return 0


def _null_in_list(text: bytes) -> int:
    """Return the line of the first `null` that is a record of a list; 0 if there is none."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif token == b"null" and depth == 1:
            return 1 + text.count(b"\n", 0, found.start())
    return 0


def _last_before(text: bytes, end: int) -> bytes:
    """Return the last byte before a place that is no space; empty if there is none."""
    while end and text[end - 1 : end].isspace():
        end -= 1
    return text[max(end - 1, 0) : end]


def _split(source: Source) -> tuple[str, str]:
    if not source.split:
        return "", ""
    match = _SPLIT.fullmatch(source.split)
    if match is None:
        raise TrainingRefused(
            f"data source {shown(source.path)}: the split {shown(source.split)} is no name with"
            " a part behind it, such as train, train[:1000] or train[10%:]"
        )
    return match[1].lower(), match[2] or ""


def _files(source: Source) -> Iterator[Path]:
    root = source.local_path
    if root.is_file():
        yield root
        return
    if not root.is_dir():
        raise TrainingRefused(f"data source {shown(source.path)}: it is not there")
    count = 0
    for path in _below(root, MAX_DEPTH, source):
        if source.format or _format_of(path):
            count += 1
            if count > MAX_FILES:
                raise TrainingRefused(
                    f"data source {shown(source.path)}: it has more than {MAX_FILES} files"
                )
            yield path
    if not count:
        raise TrainingRefused(
            f"data source {shown(source.path)}: the folder has no files that end with"
            f" {', '.join('.' + name for name in _FORMATS)}"
        )


def _below(folder: Path, depth: int, source: Source) -> Iterator[Path]:
    if depth == 0:
        raise TrainingRefused(
            f"data source {shown(source.path)}: it is more than {MAX_DEPTH} folders deep"
        )
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _below(path, depth - 1, source)
        elif path.is_file():
            yield path


def _of_split(source: Source, files: Sequence[Path], name: str) -> list[Path]:
    if not name:
        return [*files]
    root = source.local_path if source.local_path.is_dir() else source.local_path.parent
    named = {path: _words(path.relative_to(root)) & set(_NAMES) for path in files}
    wanted = _same(name)
    chosen = [path for path in files if (named[path] or _words(path.relative_to(root))) & wanted]
    if chosen:
        return chosen
    if not any(named.values()) and (name in _same("train") or source.local_path.is_file()):
        return [*files]
    there = sorted({word for words in named.values() for word in words})
    raise TrainingRefused(
        f"data source {shown(source.path)}: no file belongs to the split {shown(name)}; its files"
        f" name {listed(there) if there else 'no splits, so that all of them are train'}"
    )


def _same(name: str) -> set[str]:
    """Return a split's name with its other spellings."""
    for names in (
        {"train", "training"},
        {"validation", "valid", "val", "dev"},
        {"eval", "evaluation"},
    ):
        if name in names:
            return names
    return {name}


def _words(path: Path) -> set[str]:
    return {word.lower() for part in path.parts for word in _WORD.findall(part)}


def _format_of(path: Path) -> str:
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return _FORMATS.get(name.rpartition(".")[2], "") if "." in name else ""


def _format(source: Source, path: Path) -> str:
    if found := _format_of(path):
        return found
    raise TrainingRefused(
        f"data source {shown(source.path)}: the name {shown(path.name)} does not say the format;"
        f" set the source's format to one of {', '.join(dict.fromkeys(_FORMATS.values()))}"
    )
