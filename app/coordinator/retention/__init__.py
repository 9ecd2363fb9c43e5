"""What becomes of jobs that have ended: deleted on request or by their age, measured, kept.

Belongs here: which jobs go, and the removal of their files. Does not: the rows of the store (jobs).
"""
