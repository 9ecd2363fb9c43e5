"""Alembic's entry point: runs the revisions on the connection that `migrate` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="mod_scaimind_schema",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
