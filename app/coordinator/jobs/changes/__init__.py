"""The record of what has changed of a tenant's jobs."""
