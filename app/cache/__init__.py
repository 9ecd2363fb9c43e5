"""PostgreSQL: the pool, the schema and its migrations, the job cache."""
