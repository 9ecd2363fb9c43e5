"""What a run uses and what it may use: readings, control groups, the watch over them.

What the kernel is told to hold a process to is in `isolation`.
"""
