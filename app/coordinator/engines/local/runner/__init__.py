"""The process that owns one run. It lives apart from the coordinator, and imports little of it."""
