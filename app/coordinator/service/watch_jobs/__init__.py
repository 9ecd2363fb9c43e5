"""WatchJobs: the states of a tenant's jobs, then every change."""
