"""Everything that does no I/O: requests, their repetition, SSE, followers.

A driver (`scaimind.blocking.driver`, `scaimind.asynchronous.driver`) carries out the
commands that these generators yield. Not here: sockets, files, clocks.
"""
