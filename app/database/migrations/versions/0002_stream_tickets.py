"""Stream tickets: each opens one stream once, by the SHA-256 of a secret that is stored nowhere."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "mod_scaimind_stream_tickets"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        TABLE,
        sa.Column("ticket_hash", sa.LargeBinary, primary_key=True, comment="SHA-256 of the ticket"),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="of the stream"),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("roles", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("permissions", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("credential_id", sa.Text, nullable=False),
        sa.Column(
            "credential_expires_at",
            sa.DateTime(timezone=True),
            comment="when the credential behind the ticket ends",
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(ticket_hash) = 32", name=f"{TABLE}_ticket_hash_check"),
    )
    op.create_index(f"{TABLE}_expires_at_idx", TABLE, ["expires_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_table(TABLE)
