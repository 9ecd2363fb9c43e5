"""Bringing a job's artefacts into the format that it asks for, in a process of its own.

    npz           every .safetensors file as .npz; the rest as it is
    safetensors   every .npz file as .safetensors; the rest as it is
    tar.gz        everything in one model.tar.gz

`python -m app.coordinator.exporting <format> <from> <to>` does it. What cannot
be had in a format is one line on stdout, and a status of 1.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from app.files.copying import Abandoned

#: Seconds between two looks at whether anybody wants the result.
_LOOK: Final = 0.1
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
#: What the conversions between array formats need.
PACKAGES: Final = ("numpy", "safetensors")


class CannotConvert(Exception):
    """The artefacts cannot be had in that format; the message is for the caller."""


def missing_packages(export_format: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    needed = PACKAGES if export_format in ("npz", "safetensors") else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


def convert(export_format: str, source: Path, target: Path, *, abandoned: threading.Event) -> None:
    """Make `target`, a directory, of the artefacts in `source`. Blocks.

    Raises CannotConvert, Abandoned, OSError.
    """
    shutil.rmtree(target, ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, export_format, str(source), str(target)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Nothing of this process's environment: the API secret is in it.
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_PACKAGE_ROOT),
        },
        cwd="/",
    )
    with process:
        while True:
            try:
                said, complaint = process.communicate(timeout=_LOOK)
            except subprocess.TimeoutExpired:
                if abandoned.is_set():
                    process.kill()
                    raise Abandoned from None
            else:
                break
    if process.returncode:
        reason = said.decode(errors="replace").strip()
        if not reason:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            reason = f"the conversion broke off ({last or process.returncode})"
        raise CannotConvert(f"Its artefacts cannot be exported as {export_format}: {reason}.")


def _to_safetensors(source: Path, target: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    with np.load(source, allow_pickle=False) as arrays:
        everything = {name: arrays[name] for name in arrays.files}
    tensors = {
        name: np.ascontiguousarray(array)
        for name, array in everything.items()
        if array.dtype.kind in "biuf"
    }
    # The format knows numbers only; texts go into its metadata.
    texts = {
        name: json.dumps(array.tolist())
        for name, array in everything.items()
        if array.dtype.kind == "U"
    }
    if other := sorted(everything.keys() - tensors.keys() - texts.keys()):
        raise CannotConvert(f"{source.name}: {other[0]!r} is neither numbers nor texts")
    save_file(tensors, target, metadata=texts)


def _to_npz(source: Path, target: Path) -> None:
    import numpy as np
    from safetensors import safe_open

    with safe_open(source, framework="numpy") as tensors:
        arrays = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  # no mapping
        for name, text in (tensors.metadata() or {}).items():
            arrays[name] = np.array(json.loads(text))
    with target.open("wb") as file:
        np.savez(file, **arrays)


_CONVERTERS: Final[Mapping[str, tuple[str, Callable[[Path, Path], None]]]] = {
    "npz": (".safetensors", _to_npz),
    "safetensors": (".npz", _to_safetensors),
}
#: What `output_config.export_format` may be.
FORMATS: Final = (*_CONVERTERS, "tar.gz")


def _convert_files(export_format: str, source: Path, target: Path) -> None:
    suffix, converter = _CONVERTERS[export_format]
    fits = 0
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        goal = target / path.relative_to(source)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == suffix:
            converter(path, goal.with_suffix(f".{export_format}"))
        else:
            shutil.copy(path, goal)
        fits += goal.with_suffix(f".{export_format}").exists()
    if not fits:
        raise CannotConvert("there is neither a .npz nor a .safetensors file among them")


def _pack(source: Path, target: Path) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Files and directories; no owner, and no link that may lead anywhere."""
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if member.isfile() or member.isdir() else None

    with tarfile.open(target / "model.tar.gz", "w:gz") as archive:
        for path in sorted(source.iterdir()):
            archive.add(path, arcname=path.name, filter=plain)


def main(arguments: list[str]) -> int:
    """Convert, as the module says."""
    export_format, source, target = arguments[0], Path(arguments[1]), Path(arguments[2])
    os.nice(10)
    target.mkdir(parents=True)
    try:
        if export_format == "tar.gz":
            _pack(source, target)
        else:
            _convert_files(export_format, source, target)
    except CannotConvert as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
