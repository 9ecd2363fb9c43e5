"""How asynchronous work is shared and repeated, for all programs.

No domain logic, no I/O and no settings.
"""
