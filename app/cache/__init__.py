"""The job cache: what passed through is kept, and read while the coordinator is away.

Not here: the connection pool and the migrations (`database`).
"""
