"""What an engine does on the node where a run is: plain methods, whatever carries the calls there.

An agent stands for one run of one job on one node. It has no state that is not
in the run's directory on that node: it may be killed at any moment, and another
one goes on from there.
"""
