"""Files of the first node, brought to nodes that have disks of their own."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..job import Job

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

#: Bytes that are sent at a time.
_BLOCK: Final = 16 * 1024 * 1024


def bring_to_other_disks(folder: Path, job: Job) -> None:
    """Have on each node what a folder has on that of rank 0. All ranks call it. Raises OSError."""
    if job.shares_disk or job.world_size == 1:
        return
    import torch.distributed as dist

    # Files are bytes in main memory, whatever carries the gradients.
    group = dist.new_group(backend="gloo")
    files: list[list[tuple[str, int]] | None] = [None]
    if job.is_main:
        files[0] = [
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
    dist.broadcast_object_list(files, src=0, group=group)
    for name, size in files[0] or ():
        _bring(folder / name, size, job, group)
    dist.barrier(group=group)
    dist.destroy_process_group(group)


def _bring(path: Path, size: int, job: Job, group: "ProcessGroup") -> None:
    import torch
    import torch.distributed as dist

    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb")) if job.is_main else None
        target = None
        if job.is_main_of_disk and not job.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = stack.enter_context(path.open("wb"))
        for at in range(0, size, _BLOCK):
            block = torch.empty(min(_BLOCK, size - at), dtype=torch.uint8)
            if source is not None and source.readinto(memoryview(block.numpy())) != len(block):
                raise OSError(f"{path.name} became shorter while it was read")
            dist.broadcast(block, src=0, group=group)
            if target is not None:
                target.write(memoryview(block.numpy()))
