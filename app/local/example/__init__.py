"""The example that the first start lays into the local ScaiDrive.

The corpus is made at the first start from `pydoc_data.topics`, which every Python
contains: nothing has to be redistributed, and the text is real.
"""

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

#: Whose drive gets it.
TENANT = "local"


def install(drive: Path) -> bool:
    """Put the example's files where they are missing; tell whether any was.

    What is there is left alone: it may have been changed.
    """
    folder = drive / TENANT
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    script = Path(__file__).with_name("train.py").read_text(encoding="utf-8")
    made = _write_new(folder / "train.py", script)
    if not (folder / "corpus.jsonl").exists():
        lines = (json.dumps({"text": text}) for text in corpus())
        made |= _write_new(folder / "corpus.jsonl", "\n".join(lines) + "\n")
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


def _write_new(path: Path, content: str) -> bool:
    if path.exists():
        return False
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
    return True
