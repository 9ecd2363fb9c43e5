"""Nothing that a job does, or leaves behind, harms anybody else.

Each test lets a real coordinator, in a process of its own, run a script that means harm, and
then asks `all_is_well`. README.md has the table of the cases.
"""
