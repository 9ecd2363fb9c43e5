"""The files of tenants, for `/v1/drive/`: read, listed, written, counted.

`drive.py` and `uploads.py` say what the routes ask; `folder/` does it in a directory of this
machine, `bucket/` in an object store. Belongs here: what a path may be, what is opened, how a
file gets into its place, resumable uploads, quotas. Does not: HTTP, which is in `app.api`. All
of it that may wait for a disk or a store runs in threads of the room's own.
"""
