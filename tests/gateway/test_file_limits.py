"""The limit on file descriptors, in processes of their own: what is lowered stays lowered."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import structlog
from structlog.testing import capture_logs
from app.gateway.file_limits import raise_limit
from app.hub.settings import HubSettings
soft, hard, watchers = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with capture_logs() as lines:
    given = raise_limit(HubSettings(max_watchers=watchers, max_feeds=100))
print(json.dumps([given, resource.getrlimit(resource.RLIMIT_NOFILE), [x["event"] for x in lines]]))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "watchers", "limit", "events"),
    [
        pytest.param(256, 8192, 500, 1600, [], id="raised to what is needed"),
        pytest.param(4096, 8192, 500, 4096, [], id="never lowered"),
        pytest.param(256, 1024, 500, 1024, ["descriptor_limit_too_low"], id="told if too low"),
    ],
)
def test_the_limit(soft: int, hard: int, watchers: int, limit: int, events: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(watchers)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [limit, [limit, hard], events]
