"""Streams over many jobs: the tasks, timers and sockets around `app.hub.selection`."""
