"""Searches of a job's log, each for one client."""
