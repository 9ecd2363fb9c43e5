"""Who leads: of all coordinators with the same state, the one that may change it.

Not here: what is changed, and where it is stored.
"""
