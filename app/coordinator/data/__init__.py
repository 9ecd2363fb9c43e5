"""What jobs read and write: the drive, the models, the cache, readers, checks and conversions.

How a process for a check or a conversion runs is in `workers`.
"""
