"""What a job has made, as it is fetched to be exported."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("s3fs")

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.execution.bucket.workspace import BucketWorkspace

if TYPE_CHECKING:
    from app.objects.s3 import S3Store


def test_an_output_whose_record_is_damaged_is_not_told_as_empty(
    store: "S3Store", tmp_path: Path
) -> None:
    store.write("local/jobs/job-1/.kept/.complete/output", b"{")
    workspace = cast(Any, object.__new__(BucketWorkspace))
    workspace._bucket = BucketDrive(tmp_path / "drive", store=store)
    workspace.directory = lambda _: SimpleNamespace(path=tmp_path)
    job = SimpleNamespace(tenant_id="local", job_id="job-1", artefacts_of="")
    with pytest.raises(OSError, match="damaged"):
        workspace._collect(job, threading.Event())
