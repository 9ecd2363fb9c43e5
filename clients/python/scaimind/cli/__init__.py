"""The command `scaimind`: for people at a terminal and for scripts.

Not here: anything that a program could want, which is in the library.
"""
