"""The Python client's models are those of the API's document."""

import json
import subprocess
import sys
from pathlib import Path

from aiohttp import web

from app.gateway.routes import add_routes
from app.openapi.document import build

CLIENT = Path(__file__).parents[2] / "clients/python"


def test_the_models_are_current(tmp_path: Path) -> None:
    app = web.Application()
    add_routes(app)
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(build(app.router.routes())))
    command = [sys.executable, str(CLIENT / "scripts/models"), "--check", str(document)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
