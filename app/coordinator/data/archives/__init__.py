"""Archives that callers name, unpacked within bounds: each in a worker of its own.

Belongs here: what an archive may hold. Does not: which archive is meant, and for what.
"""
