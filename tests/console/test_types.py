"""The console's modules have the types that their comments say."""

import json
import subprocess
from pathlib import Path

from tests.npm import installed

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "app/console/static"


def checked(folder: Path, static: Path) -> subprocess.CompletedProcess[str]:
    packages = installed(HERE)
    config = json.loads((HERE / "tsconfig.json").read_text())
    config["compilerOptions"]["paths"] = {"*": [f"{packages}/node_modules/*"]}
    config["include"] = [f"{static}/**/*.js"]
    config["exclude"] = [f"{static}/vendor"]
    (folder / "tsconfig.json").write_text(json.dumps(config))
    command = [f"{packages}/node_modules/.bin/tsc", "-p", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_modules_are_typed(tmp_path: Path) -> None:
    result = checked(tmp_path, STATIC)
    assert result.returncode == 0, result.stdout


def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (static / "wrong.js").write_text("/** @type {number} */ const text = 'a';\nexport { text };\n")
    result = checked(tmp_path, static)
    assert result.returncode != 0
    assert "wrong.js" in result.stdout
