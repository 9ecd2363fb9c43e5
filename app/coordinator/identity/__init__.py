"""Who calls, and what a caller or a job may read and write."""
