"""What starts runs on nodes and stops them, one folder an engine.

Nothing outside of this room knows the signals, process ids or commands of a run.
"""
