"""The program that trains language models, as a job's process finds it.

    <program>/train_model.py          the launcher
    <program>/scaimind_trainers/      the modules of app/trainers, under a name of their own

Only the launcher's folder is added to `sys.path`, and nothing else of this project is in it:
a user's own `app` or `data.py` is not hidden, and code that comes with a model finds no more.
"""

import os
import threading
from pathlib import Path
from typing import Final

import app
from app.files.copying import copy_content
from app.files.directory import Directory

#: The name that the program is imported by.
PACKAGE: Final = "scaimind_trainers"
LAUNCHER: Final = "train_model.py"
#: Python's options for it: its own folder, and the one it runs in, are not searched for modules.
OPTIONS: Final = ("-P",)
#: Where its modules are. They are read as files: nothing of this process imports them.
SOURCE: Final = Path(app.__file__).parent / "trainers"

#: Workers of a data loader may import it anew.
_LAUNCHER_TEXT: Final = f"""\
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from {PACKAGE}.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""


def place_trainers(program: Directory, abandoned: threading.Event) -> None:
    """Copy it into a directory that has neither name yet, for every user to read.

    Raises Abandoned, OSError.
    """
    with program.create(LAUNCHER) as launcher:
        launcher.write(_LAUNCHER_TEXT.encode())
        os.fchmod(launcher.fileno(), 0o644)
    _place_package(program, PACKAGE, SOURCE, abandoned)


def _place_package(parent: Directory, name: str, source: Path, abandoned: threading.Event) -> None:
    with parent.make_directory(name) as folder:
        os.fchmod(folder.descriptor, 0o755)
        for path in sorted(source.iterdir()):
            if path.is_dir() and (path / "__init__.py").is_file():
                _place_package(folder, path.name, path, abandoned)
            elif path.suffix == ".py":
                with open(path, "rb") as module, folder.create(path.name) as copy:
                    copy_content(module.fileno(), copy.fileno(), abandoned)
                    os.fchmod(copy.fileno(), 0o644)
