"""Files on the drive, with blocking calls."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scaimind.archive import hashed
from scaimind.blocking.driver import SyncDriver
from scaimind.core import files, sync
from scaimind.core.files import Entry, Fetching, Folder, Stored, Synced
from scaimind.saving import Saving
from scaimind.selection import SelectedFile


class Files:
    """The tenant's files. A path is names joined by slashes, from the tenant's folder on."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver

    def folder(self, path: str = "") -> Folder:
        """Get a folder; its `uri` is how a submission names it."""
        return self._driver.result(files.get_folder(path))

    def list(self, path: str = "") -> Iterator[Entry]:
        """Iterate over what a folder holds, by name."""
        return self._driver.run(files.list_folder(path))

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of this path."""
        return self._driver.result(files.is_folder(path))

    def get(self, path: str) -> Stored:
        """Get what is stored of a file, without its content. Raises `NotFound`."""
        return self._driver.result(files.get_file(path))

    def upload(
        self,
        local: Path,
        path: str,
        *,
        only_new: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Stored:
        """Store a file, whole or not at all; one that breaks goes on where it was.

        `progress` is called with the bytes that have arrived. With `only_new`,
        raises `Conflict` if there is a file of that name.
        """
        steps = files.upload(local, local.stat().st_size, path, only_new=only_new)
        return self._driver.result(steps, progress)

    def download(
        self, path: str, local: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> Stored:
        """Fetch a file; `local` is there whole or not at all.

        `progress` is called with the bytes that have come, and with all.
        """
        fetching = Fetching()
        with Saving(local) as saving:
            for piece in self._driver.run(files.download(path, fetching)):
                saving.write(piece)
                if progress is not None:
                    progress(fetching.offset, fetching.size)
        return Stored(path, fetching.etag, fetching.size)

    def read(self, path: str) -> Iterator[bytes]:
        """Iterate over a file's content, in pieces."""
        return self._driver.run(files.download(path, Fetching()))

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or an empty folder, or with `recursive` all that is in it."""
        self._driver.result(files.remove(path, recursive=recursive))

    def sync(
        self,
        selected: Iterable[SelectedFile],
        path: str,
        *,
        delete: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> Synced:
        """Bring files into a folder of the drive: those whose content is not there yet.

        `scaimind.selection.select` chooses a folder's files. `progress` is called
        with each name that is sent. With `delete`, files that an earlier call
        brought and that are not selected are removed.
        """
        steps = sync.sync([hashed(each) for each in selected], path, delete=delete)
        return self._driver.result(steps, progress)
