"""Console sessions and the codes that are exchanged for them, by the SHA-256 of their secrets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE = "mod_scaimind_console_sessions"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        TABLE,
        sa.Column(
            "secret_hash", sa.LargeBinary, primary_key=True, comment="SHA-256 of the code or token"
        ),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column(
            "sealed_token",
            sa.Text,
            nullable=False,
            comment="the credential behind it, which only the code or token opens",
        ),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("roles", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("permissions", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("credential_id", sa.Text, nullable=False),
        sa.Column(
            "credential_expires_at",
            sa.DateTime(timezone=True),
            comment="when the credential behind it ends",
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('code', 'session')", name=f"{TABLE}_kind_check"),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=f"{TABLE}_secret_hash_check"),
    )
    op.create_index(f"{TABLE}_expires_at_idx", TABLE, ["expires_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_table(TABLE)
