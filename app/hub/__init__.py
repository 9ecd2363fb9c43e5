"""Fan-out: one upstream stream per job, any number of watchers, nothing lost silently.

`core/` decides what is sent next, without I/O; the modules beside it drive it.
Not here: HTTP, gRPC, JSON.
"""
