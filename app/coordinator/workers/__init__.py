"""Helper processes that parse what jobs and callers wrote: started, bounded, confined, ended.

Belongs here: how such a process runs. Does not: what it does; that is a module of its own.
"""
