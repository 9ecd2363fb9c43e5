"""Every page about a hostile job answers, through the gateway and its real coordinator."""

from tests.functional.stack import Stack
from tests.functional.test_evaluations import post
from tests.hostile.cases import BROKEN_READS, RUNNER_DIED, STUCK, script

#: All that one script can leave behind, one after the other.
_EVERYTHING = script(
    "\n".join(
        f"os.chdir(os.environ['HOME'])\ntry:\n    {case.body.strip()}\nexcept OSError: pass"
        for case in (*STUCK.values(), *BROKEN_READS.values())
        if "\n" not in case.body.strip()
    )
    + "\n".join(case.body for case in RUNNER_DIED.values())
)


def test_every_page_of_a_hostile_job_answers(stack: Stack) -> None:
    (stack.data_dir / "drive" / "local" / "hostile.py").write_text(_EVERYTHING)
    job_id = post(
        stack,
        "/jobs",
        {
            "name": "hostile",
            "training_config": {
                "training_type": "CONTINUED_PRETRAIN",
                "base_model": {"model_id": "none"},
                "framework": {
                    "type": "CUSTOM",
                    "custom_script_path": "scaidrive://local/hostile.py",
                },
            },
            "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
            "resource_config": {},
            "output_config": {"register_model": True, "model_name": "hostile"},
        },
    )["job_id"]
    job = stack.await_status(job_id, "COMPLETED", "FAILED")
    assert job["status"] == "COMPLETED" or job["error_message"]
    for path in (
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/metrics",
        f"/jobs/{job_id}/checkpoints",
        "/queue",
        "/cluster",
        "/cluster/nodes",
    ):
        assert stack.get(path) is not None, path
    assert "still here" in stack.log(job_id)
    after = stack.submit(steps="2")
    assert stack.await_status(after, "COMPLETED", "FAILED")["status"] == "COMPLETED"
