"""Ray, in a process of its own: a driver that the coordinator starts, and actors on the nodes.

Whatever happens to a driver, and a C++ check may abort one, the coordinator goes
on. Only this package imports `ray`, and only when a driver or an actor runs.
"""
