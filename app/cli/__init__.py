"""The server's commands, one module for each subject.

Not here: logic of the services, which the commands only start.
"""
