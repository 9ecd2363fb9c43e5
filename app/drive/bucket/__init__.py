"""The drive in an object store, in which the coordinator and its nodes keep files, too.

The objects of a tenant's files have its id before their path: `<tenant>/<path>`. What is
decided here is what a folder is where there are only keys, and what of a job may be seen.
"""
