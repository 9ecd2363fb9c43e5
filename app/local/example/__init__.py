"""The example that the first start lays into the local ScaiDrive.

The corpus is made at the first start from `pydoc_data.topics`, which every Python
contains: nothing has to be redistributed, and the text is real.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from app.local.example.models import write_sums

#: Whose drive gets it.
TENANT = "local"


#: SHA-256 of train.py as earlier releases laid it down.
_FORMER_SCRIPTS = frozenset(
    {
        "13e468f5dfa6e44f3179f3ae2ffe70d26e1a8f828031a736b2c90b05a81c3857",
        "9c356f91098dcf551508ee618039f0ac9a8bd38aa5e89d6570d63e04cc131cb2",
        "d55e1f9b7b9fa70496cc0e76a8cfe5a11fc06660b70c36fad1fcae94d9cc3861",
    }
)


def install(drive: Path, *, with_model: bool = False) -> bool:
    """Put the example's files where they are missing; tell whether any was.

    `with_model` adds what a language model learns.

    What is there is left alone, since it may have been changed, but for a script that is
    exactly that of an earlier release: it becomes today's.
    """
    folder = drive / TENANT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    script = Path(__file__).with_name("train.py").read_text(encoding="utf-8")
    made = _write(folder / "train.py", script, instead_of=_FORMER_SCRIPTS)
    if not (folder / "corpus.jsonl").exists():
        lines = (json.dumps({"text": text}) for text in corpus())
        made |= _write(folder / "corpus.jsonl", "\n".join(lines) + "\n")
    if with_model:
        made |= write_sums(folder)
    return made


def corpus() -> Iterator[str]:
    """Yield the paragraphs of the Python Language Reference that every Python brings for `help()`.

    About half a million characters of English prose and grammar, under the
    PSF licence, reduced to ASCII so that the model has a small alphabet.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            text = unicodedata.normalize("NFKD", paragraph).encode("ascii", "ignore").decode()
            if text.strip():
                yield text.strip("\n")


def _write(path: Path, content: str, *, instead_of: Collection[str] = ()) -> bool:
    if path.exists() and not (path.is_file() and _digest(path) in instead_of):
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
