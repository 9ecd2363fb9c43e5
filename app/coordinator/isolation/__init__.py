"""How a run is kept apart from everything else on the machine, and to what it asked for.

The coordinator decides (`levels`, `probe`, `uids`), the runner starts (`sandbox`,
`bubblewrap`, `user_namespace`), and `first_process` is what runs inside. `ending` ends what is
left.
"""
