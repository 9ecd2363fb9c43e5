"""The calls about a job's log: watched, read in pages, searched, drawn.

Belongs here: what leads from a request to an answer. Does not: how a log is stored and
read; that is `app.coordinator.logs`.
"""
