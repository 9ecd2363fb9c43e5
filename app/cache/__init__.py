"""The job cache: what passed through is kept, and read while the coordinator is away.

The database's plumbing is in `database`.
"""
