"""How the program was called, so that what it says can be pasted into a shell."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import app

#: Set by scripts/run to the name that it was called by.
VARIABLE = "SCAIMIND_INVOKED_AS"
_MODULE = "__main__.py"


def program_name(environ: Mapping[str, str], argv: Sequence[str]) -> str:
    """Return what help calls the program: `scripts/run`, `python -m app`, `scaimind-gateway`."""
    if named := environ.get(VARIABLE):
        return shlex.quote(named)
    called = Path(argv[0]).name
    return "python -m app" if called == _MODULE else called


def command_line(environ: Mapping[str, str], command: str, *, data_dir: Path) -> str:
    """Return a command of this program as a shell takes it, where this one was started.

    It uses the same folders as this process.
    """
    usual = {"SCAIMIND_DATA_DIR": Path("var").absolute()}
    used = {"SCAIMIND_DATA_DIR": data_dir.absolute()}
    if named := environ.get(VARIABLE):
        words = [named, command]
        project = Path(app.__file__).parents[1]
        usual = {"SCAIMIND_DATA_DIR": project / "var", "SCAIMIND_VENV": project / ".venv"}
        if environment := environ.get("SCAIMIND_VENV"):
            used["SCAIMIND_VENV"] = Path(environment)
    elif Path(sys.argv[0]).name == _MODULE:
        words = [sys.orig_argv[0], "-m", "app", command]
    else:
        words = [sys.argv[0], command]
    settings = [
        f"{variable}={shlex.quote(str(folder))}"
        for variable, folder in used.items()
        if folder != usual[variable]
    ]
    return " ".join((*settings, shlex.join(words)))


def stack_name(environ: Mapping[str, str]) -> str:
    """Return what messages call the command that runs everything, in quotes."""
    named = environ.get(VARIABLE)
    return f"'{named}'" if named else "'up'"
