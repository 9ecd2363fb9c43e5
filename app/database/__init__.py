"""PostgreSQL: the pool, the schema and its migrations.

Not here: statements on tables, which belong to the rooms that own them.
"""
