"""The stream over many jobs."""
