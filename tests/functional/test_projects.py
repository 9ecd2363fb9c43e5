"""A job that is a folder with packages of its own, through the whole stack."""

from typing import Any

from tests.coordinator.wheels import make_wheel
from tests.functional.stack import Stack
from tests.functional.test_errors import fields_of, refusal, submission
from tests.functional.test_evaluations import post

TRAIN = """
import subprocess, sys
import extra
import helper
print("arguments", sys.argv[1:])
print("imported", extra.VERSION, helper.NAME)
print("script", subprocess.run(["extra-cli"], capture_output=True, text=True).stdout.strip())
"""


def of(**config: str) -> dict[str, Any]:
    body = submission(name="a folder", data_config={"sources": []})
    body["training_config"]["framework"] = {
        "type": "CUSTOM",
        "custom_script_path": "train.py",
        "config": {"working_dir": "scaidrive://local/a-project", **config},
    }
    return body


def test_a_folder_runs_with_its_packages(stack: Stack) -> None:
    folder = stack.data_dir / "drive/local/a-project"
    extra = {"extra.py": "VERSION = '1.0'\ndef main(): print('from a script')\n"}
    make_wheel(folder / "wheels", "extra", files=extra, scripts={"extra-cli": "extra:main"})
    (folder / "train.py").write_text(TRAIN)
    (folder / "helper.py").write_text("NAME = 'helper'\n")
    (folder / "requirements.txt").write_text("--no-index\n--find-links ./wheels\nextra==1.0\n")
    body = of(requirements="requirements.txt", arguments="--name 'two words'")
    job_id = post(stack, "/jobs", body)["job_id"]

    job = stack.await_status(job_id, "COMPLETED", "FAILED")
    said = stack.log(job_id)

    assert job["status"] == "COMPLETED", said
    assert "arguments ['--name', 'two words']" in said
    assert "imported 1.0 helper" in said
    # The stack's path has a space, which no first line of a script can have.
    assert "script from a script" in said


def test_what_is_wrong_with_it_is_told_at_its_place(stack: Stack) -> None:
    status, error = refusal(stack, of(arguments="--name 'two words"))
    assert (status, error["code"]) == (422, "VALIDATION_ERROR")
    assert fields_of(error) == {
        "training_config.framework.config.arguments": (
            "The quote ' at character 8 is never closed; a JSON list of strings needs no quoting."
        )
    }
    status, error = refusal(stack, of(requirements="../requirements.txt"))
    assert (status, error["code"]) == (400, "INVALID_ARGUMENT")
    assert list(fields_of(error)) == ["training_config.framework.config.requirements"]
