"""Checkpoints of ZeRO, which are divided among ranks, for another number of ranks."""

import logging
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Final

from ..errors import TrainingRefused, shown

log: Final = logging.getLogger(__name__)
#: In a checkpoint of DeepSpeed: the folder that has the ranks' parts.
_LATEST: Final = "latest"
_TAG: Final = re.compile(r"global_step\d{1,15}")
_MAX_TAG: Final = 64


def universal_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Write into a new folder what any number of ranks can go on from (DeepSpeed's universal
    checkpoint), with the trainer's own files. Raises TrainingRefused, OSError.
    """
    from deepspeed.checkpoint.ds_to_universal import main as convert

    with (checkpoint / _LATEST).open(encoding="utf-8", errors="replace") as file:
        tag = file.read(_MAX_TAG).strip()
    if _TAG.fullmatch(tag) is None:
        raise TrainingRefused(
            f"the checkpoint {shown(checkpoint.name)} cannot be resumed: its file {_LATEST} names"
            f" {shown(tag)}"
        )
    log.info("The parts of the checkpoint are divided anew.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    convert(
        Namespace(
            input_folder=str(checkpoint / tag),
            output_folder=str(folder / f"{tag}_universal"),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )
    (folder / f"{_LATEST}_universal").write_text(f"{tag}_universal", encoding="utf-8")
