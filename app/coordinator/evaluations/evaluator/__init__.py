"""What an evaluation's process is: it scores a model whose own code runs in a process apart.

Belongs here: the benchmarks, the two processes, the results. Does not: anything that imports
the rest of the project. This room is copied to where a job can read it, and runs there by itself.
"""
