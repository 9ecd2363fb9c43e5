"""Stream tickets say in which console session they were made: they end with it.

A replica of an earlier version that still runs writes no session: what its tickets open
goes on until the session would have ended.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = "mod_scaimind_stream_tickets"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        TABLE,
        sa.Column("session_id", sa.Text, comment="the console session; NULL without one"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column(TABLE, "session_id")
