"""Files below directories that somebody else may change: held descriptors, bounded walks.

Belongs here: what any program needs to open, walk, copy and remove such files. Does not:
anything that knows jobs, tenants or settings. This room imports nothing else of `app`.
"""
