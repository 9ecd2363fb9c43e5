"""What of a run the coordinator says, where its node finds out the rest."""

from pathlib import Path

from typing_extensions import override

from app.coordinator.data.bucket_drive import BucketDrive
from app.coordinator.engines.engine import RunSpec
from app.coordinator.execution.bucket.newest_run import note_newest_run
from app.coordinator.execution.ranks import ranks_of
from app.coordinator.execution.run_spec import RunSpecs, announcement_of, warnings_of
from app.coordinator.jobs.model import JobRecord
from app.coordinator.submission.environment import own_variables

#: In the place of what the node knows.
_THERE = Path()


class BucketRunSpecs(RunSpecs):
    """Makes them. Blocks shortly."""

    @override
    def of(self, job: JobRecord) -> RunSpec:
        assert isinstance(self._drive, BucketDrive)
        note_newest_run(self._drive, job)
        environment, left_out = own_variables(job.submission.training_config.environment)
        return RunSpec(
            announcement=announcement_of(job),
            warnings=warnings_of(left_out),
            script=_THERE,
            environment=environment,
            variables={},
            secrets=self._secrets_file(job, environment),
            ranks=ranks_of(job),
            checkpoints=_THERE,
            term=self._leadership.term,
        )
