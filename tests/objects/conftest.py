"""A bucket for all tests of this folder; each has a prefix of its own in it."""

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# The modules of this folder say what is missing where there is no s3fs.
if TYPE_CHECKING:
    from app.objects.s3 import S3Store
    from tests.objects.buckets import Bucket


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Bucket"]:
    """A server with a bucket, and the credentials for it."""
    from tests.objects.buckets import moto_bucket

    with moto_bucket(tmp_path_factory.mktemp("moto")) as found:
        yield found


@pytest.fixture
def prefix() -> str:
    """Of one test."""
    return f"{secrets.token_hex(4)}/"


@pytest.fixture
def store(bucket: "Bucket", prefix: str) -> Iterator["S3Store"]:
    """A store of nothing."""
    from tests.objects.buckets import opened

    with opened(bucket.place(prefix)) as found:
        yield found
