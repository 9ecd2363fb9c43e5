"""Everything that does no I/O: requests, their repetition, SSE, followers.

A driver (`scaimind.sync_driver`, `scaimind.async_driver`) carries out the
commands that these generators yield. Not here: sockets, files, clocks.
"""
