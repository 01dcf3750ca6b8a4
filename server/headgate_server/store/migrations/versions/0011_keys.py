"""Keys: names, limits, the last use, and successors."""

import sqlalchemy as sa
from alembic import op

from headgate_server.core.errors import SetupError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns: no row is rewritten. Raises `SetupError` if a workspace has the reserved name.

    No version could create such a workspace. If someone made one by hand, its keys would become those of operators.
    """
    found = op.get_bind().execute(sa.text("SELECT id FROM workspaces WHERE name = '_headgate'")).first()
    acts = sa.text("SELECT count(*) FROM events WHERE workspace_id = :id AND source <> 'headgate'")
    keys = sa.text("SELECT count(*) FROM api_keys WHERE workspace_id = :id")
    if found is not None and any(op.get_bind().execute(one, {"id": found.id}).scalar_one() for one in (acts, keys)):
        raise SetupError(
            "The store has a workspace named '_headgate', made by hand: this name is reserved for the audit now. "
            "Give the workspace another name."
        )
    op.add_column("api_keys", sa.Column("name", sa.Text, nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("limits", sa.Text))
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger))
    op.add_column("api_keys", sa.Column("successor", sa.Text))
