"""Environments of packages that jobs ask for: made once, shared by a tenant's jobs, evicted.

Belongs here: what an environment is made of, how it is made, and which are kept. Does not: how a
program is kept apart from others; that is the engine's.
"""
