"""What each watcher gets next: decided without I/O, tasks or a clock of its own.

Not here: streams, sockets and tasks, which drive it from the room above.
"""
