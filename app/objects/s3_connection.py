"""The connections to S3, or to what speaks its protocol, by s3fs; and how its calls fail."""

import configparser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import fsspec.asyn
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from s3fs.core import S3_RETRYABLE_ERRORS

from app.files.copying import Abandoned
from app.files.directory import LimitReached
from app.objects.s3_errors import translated
from app.objects.store import ChangedObject, DriveRefused, DriveUnavailable

#: Bytes of a file with credentials.
_MAX_CREDENTIALS: Final = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where the objects are, and with which credentials they are reached."""

    bucket: str
    #: Before all keys; empty, or it ends with a slash.
    prefix: str
    #: Of a store that is not Amazon's.
    endpoint: str = ""
    #: In the form of ~/.aws/credentials, profile `default`; else what botocore finds.
    credentials: Path | None = None
    #: Seconds to connect, and to wait for something to come.
    patience: tuple[float, float] = (10.0, 60.0)
    #: Of a request that the store does not answer as it should.
    attempts: int = 4
    #: Of all those: what breaks off in the middle of an answer is asked for again.
    rounds: int = 2
    #: At the same time; a request that finds none free waits as for a connection.
    connections: int = 10


class S3Connection:
    """Blocks: call it in a thread. Safe to use from several threads."""

    def __init__(self, place: S3Place) -> None:
        """Connects to nothing yet. Raises DriveRefused if the file with credentials cannot be
        used."""
        self.bucket = place.bucket
        self.prefix = place.prefix
        connect, read = place.patience
        config: dict[str, Any] = {
            "connect_timeout": connect,
            "read_timeout": read,
            "retries": {"mode": "standard", "max_attempts": place.attempts},
            "max_pool_connections": place.connections,
        }
        if place.endpoint:
            # Others have neither a name for each bucket nor Amazon's newer checksums.
            config["s3"] = {"addressing_style": "path"}
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"
        self.files = s3fs.S3FileSystem(
            **_credentials(place.credentials),
            endpoint_url=place.endpoint or None,
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self.files.retries = place.rounds

    def call(self, name: str, **asked: Any) -> dict[str, Any]:
        """Make a call of S3 in the bucket. Raises the errors of `ObjectStore`."""
        with self.failures():
            answer: dict[str, Any] = self.files.call_s3(name, Bucket=self.bucket, **asked)
            return answer

    def wait(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have the connections' event loop run what `function` returns. Raises as `call`."""
        with self.failures():
            return fsspec.asyn.sync(self.files.loop, function, *arguments)

    def soon(self, function: Callable[[], object]) -> None:
        """Have the connections' event loop call it; nobody waits for that."""
        self.files.loop.call_soon_threadsafe(function)

    def path(self, key: str) -> str:
        """Return how s3fs names an object."""
        return f"{self.bucket}/{self.prefix}{key}"

    def close(self) -> None:
        """Close the connections."""
        client = self.files._s3
        if client is not None:
            fsspec.asyn.sync(self.files.loop, client.close)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Say what the store answers, or that it does not, as the errors of `ObjectStore`."""
        try:
            yield
        except (Abandoned, ChangedObject, DriveRefused, DriveUnavailable, LimitReached):
            raise
        except (OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS) as error:
            # Without the cause: its text may have a key's id in it, and reaches the log.
            raise translated(error, self.bucket) from None


def _credentials(path: Path | None) -> dict[str, str]:
    """Return what a file of credentials has. Raises DriveRefused; no message has its content."""
    if path is None:
        return {}
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_string(file.read(_MAX_CREDENTIALS))
        found = parser["default"]
        values = {
            "key": found["aws_access_key_id"],
            "secret": found["aws_secret_access_key"],
        }
    except OSError as error:
        raise DriveRefused(
            f"the file with the drive's credentials cannot be read: {error.strerror}"
        ) from None
    except (KeyError, UnicodeDecodeError, configparser.Error):
        raise DriveRefused(
            "the file with the drive's credentials is not of the form of ~/.aws/credentials with a"
            " profile [default]"
        ) from None
    if token := found.get("aws_session_token"):
        values["token"] = token
    return values
