"""What is done with a job's files on a node that shares no disk with the coordinator.

The node's agent calls it (`engines.agent.part_files`), in a process of one run.
"""
