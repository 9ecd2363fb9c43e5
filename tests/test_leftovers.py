"""What a run of the tests left is named."""

import os
from pathlib import Path

from tests.leftovers import left_behind


def test_what_was_made_since_is_named(tmp_path: Path) -> None:
    names = ("scaimind-1", "PostgreSQL.5", "org.chromium.Chromium.x", "somebody-elses")
    for name in names:
        (tmp_path / name).touch()
    since = os.stat(tmp_path / "scaimind-1").st_ctime
    named = [str(tmp_path / name) for name in sorted(names[:3])]
    assert left_behind([tmp_path, tmp_path / "not-there"], since=since) == named
    assert left_behind([tmp_path], since=since + 3600) == []
