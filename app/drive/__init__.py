"""The files of tenants on this machine, for `/v1/drive/`: read, listed, written, counted.

Belongs here: what a path may be, what is opened, how a file gets into its place, resumable
uploads, quotas. Does not: HTTP, which is in `app.api`. All of it that may wait for a disk runs
in threads of the room's own.
"""
