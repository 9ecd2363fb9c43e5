"""Sources of a drive in an object store, fetched to be checked by a process without network."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.coordinator.data.bucket_drive import BucketDrive, is_in_store
from app.coordinator.data.drive import BadUrl, Drive
from app.coordinator.errors import FailedPrecondition
from app.coordinator.identity.access import Access
from app.files.directory import Directory
from app.files.walking import Position
from app.objects.trees import Member, fetch_members


@asynccontextmanager
async def fetched(
    bucket: BucketDrive, access: Access, urls: Sequence[str], *, limit: int
) -> AsyncIterator[Drive]:
    """A drive that is a folder and has what is there of the URLs, as long as it is needed.

    Raises FailedPrecondition if they have more than `limit` bytes; as every
    call of the store.
    """
    bucket.root.mkdir(parents=True, exist_ok=True)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=bucket.root, prefix=".checked-"))
    abandoned = threading.Event()
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, _fetch, bucket, access, urls, folder, limit, abandoned)
    try:
        await asyncio.shield(work)
        yield Drive(folder, atlas=folder / ".atlas", allowed=bucket.allowed)
    finally:
        abandoned.set()
        with suppress(Exception):  # who asked has it, or is gone
            await asyncio.wait([work])
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _fetch(
    bucket: BucketDrive,
    access: Access,
    urls: Sequence[str],
    folder: Path,
    limit: int,
    abandoned: threading.Event,
) -> None:
    local = Drive(folder, atlas=folder / ".atlas")
    left = limit
    for url in dict.fromkeys(filter(is_in_store, urls)):
        # What has no such form, or is not there, is found so by the check itself.
        with suppress(BadUrl):
            tree = bucket.tree(access, url)
            left -= sum(member.stored.size for member in tree)
            if left < 0:
                raise FailedPrecondition(
                    f"data_sources: they have more than {limit} bytes, the most that is fetched to"
                    " be checked here (setting cache_bytes); check fewer of them at once"
                )
            place = local.place(access, url)
            *folders, name = place.parts
            if [member.path for member in tree] == [""]:
                tree = [Member(name, tree[0].stored)]
            else:
                folders.append(name)
            place.root.mkdir(parents=True, exist_ok=True)
            with Directory.open(place.root) as top, Position(top) as position:
                position.follow(tuple(folders))
                fetch_members(bucket.store, tree, position.directory, abandoned)
