"""What Alembic runs for each command: the revisions, on the connection and in the transaction of ``migrate``."""

from alembic import context

from resources.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
