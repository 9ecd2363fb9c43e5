"""PostgreSQL: the pool, the schema and its migrations.

What is kept there belongs to its own room.
"""
