"""The databases that the coordinator's state may be in: SQLite, or PostgreSQL.

Not here: the tables, which belong to the rooms that own them.
"""
