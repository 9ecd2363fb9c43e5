"""API keys: who calls, by the SHA-256 of a secret that is stored nowhere."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE = "mod_scaimind_api_keys"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        TABLE,
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("key_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the key"),
        sa.Column("name", sa.Text, nullable=False, server_default=""),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("permissions", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("key_hash", name=f"{TABLE}_key_hash_key"),
        sa.CheckConstraint("octet_length(key_hash) = 32", name=f"{TABLE}_key_hash_check"),
    )
    op.create_index(f"{TABLE}_tenant_id_idx", TABLE, ["tenant_id", "created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_table(TABLE)
