"""What a stream over many jobs gets next: which jobs, from where on, in which turn.

Without I/O, tasks or a clock of its own, like `app.hub.core`. Not here: streams of
the coordinator, sockets and tasks, which drive it from `app.hub.events`.
"""
