"""The streams of the coordinator, as the hub takes them: a job's, and a tenant's states."""
