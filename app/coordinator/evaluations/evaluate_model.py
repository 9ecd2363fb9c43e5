"""The script of an evaluation: runs the evaluator that lies beside it.

It is copied with the folder `evaluator`, and is run with `python -I`: nothing
that a model left in the job's directories is imported.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    runpy.run_module("evaluator", run_name="__main__")
