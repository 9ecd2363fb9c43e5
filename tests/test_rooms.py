"""The imports between the rooms of app/: import-linter's contracts, and what they cannot see."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.coordinator.engines.local.launcher import FORMER_RUNNER_MODULES

ROOT = Path(__file__).parents[1]
MODULE = re.compile(r"(app|generated|scripts)(\.[a-z_0-9]+)+")
IMPORT_LINTER = Path(sys.executable).with_name("lint-imports")


def lint(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [IMPORT_LINTER, "--no-cache", "setup.cfg"],
        cwd=root,
        env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("app", "generated"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        (
            "app/hub/core/feed_core.py",
            "app.api.access",
            "Each room imports only what stands below it",
        ),
        ("app/issuer/keys.py", "app.auth.jwt", "The issuer is a program of its own"),
        (
            "app/coordinator/jobs/states.py",
            "app.schemas.jobs",
            "The coordinator is a program of its own",
        ),
        ("app/api/bodies.py", "app.issuer.keys", "The gateway knows no other program"),
        ("app/api/bodies.py", "grpc", "Only the bridge and the coordinator speak gRPC"),
        ("app/hub/core/feed_core.py", "aiohttp", "The hub knows no HTTP server"),
        (
            "app/coordinator/execution/job_work.py",
            "app.coordinator.engines.local.launcher",
            "Only the server knows which engine carries runs out",
        ),
    ],
)
def test_an_import_that_breaks_a_contract_is_found(
    copy: Path, module: str, imported: str, contract: str
) -> None:
    path = copy / module
    text = path.read_text(encoding="utf-8")
    # Also where only type checkers import.
    path.write_text(
        f"{text}\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {imported}\n",
        encoding="utf-8",
    )
    status, output = lint(copy)
    assert status == 1
    assert f"{contract} BROKEN" in output


def test_a_room_that_stands_in_no_layer_is_found(copy: Path) -> None:
    (copy / "app" / "attic").mkdir()
    (copy / "app" / "attic" / "__init__.py").touch()
    status, output = lint(copy)
    assert status == 1
    assert "attic" in output


def named_modules() -> Iterator[tuple[str, str]]:
    """Modules that programs name in strings: they start them, or load their data."""
    for folder in ("app", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.value if isinstance(node, ast.Constant) else None
                # Processes that an earlier version started are known by names that are gone.
                if text in FORMER_RUNNER_MODULES:
                    continue
                if isinstance(text, str) and MODULE.fullmatch(text):
                    yield str(path.relative_to(ROOT)), text


@pytest.mark.parametrize(("where", "module"), [*named_modules()])
def test_a_module_that_is_named_in_a_string_exists(where: str, module: str) -> None:
    importlib.import_module(module)


def test_no_module_has_more_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "app").rglob("*.py")
    }
    assert {path: count for path, count in lengths.items() if count > 400} == {}


#: Rooms that may have more, by as many as there are; each says why in its `__init__`.
LARGE = {"app/api": 19}


def test_no_room_has_more_than_18_modules() -> None:
    counts = {
        str(folder.relative_to(ROOT)): len([*folder.glob("[!_]*.py")])
        for folder in (ROOT / "app").rglob("*/")
    }
    assert {room: count for room, count in counts.items() if count > LARGE.get(room, 18)} == {}
