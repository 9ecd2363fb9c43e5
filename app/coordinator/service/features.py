"""What this coordinator can do beyond the first version of the contract."""

from typing import Final

#: As GetClusterStatus announces it, in alphabetical order. A name joins with what it stands for:
#: a gateway asks for nothing that is not announced, and for all that is.
FEATURES: Final[tuple[str, ...]] = (
    "delete_job",
    "job_filters",
    "log_filters",
    "log_marks",
    "log_search",
    "metrics_buckets",
    "parent_filter",
    "retry_keys",
    "update_job",
    "validate_only",
    "watch_jobs",
)
