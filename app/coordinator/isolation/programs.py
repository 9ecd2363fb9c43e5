"""The small programs of this package, as commands.

They run without site-packages and without the environment's say in what is
imported, in few milliseconds. Where one runs, the files in `FILES` must be there.
"""

import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[3]
_HERE: Final = __package__

#: What the programs import of this project.
FILES: Final = (
    str(_ROOT / "app/__init__.py"),
    str(_ROOT / "app/coordinator/__init__.py"),
    str(_ROOT / "app/coordinator/isolation"),
)
#: The directories that these are in, which must be readable.
FOLDERS: Final = tuple(map(str, (_ROOT, _ROOT / "app", _ROOT / "app/coordinator")))


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs `main` of a module of this package."""
    code = (
        f"import sys; sys.path.insert(0, {str(_ROOT)!r});"
        f" from {_HERE}.{module} import main; sys.exit(main())"
    )
    return [sys.executable, "-I", "-S", "-B", "-c", code, *arguments]
