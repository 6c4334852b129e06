"""Creates the state folder and the tables of the database: the first container of ``compose.yaml``.

Belongs here: what ``make dev`` does before it starts its processes, for those that start in containers.
"""

from __future__ import annotations

import sqlalchemy as sa

from resources.home import prepare
from resources.migrations import migrate
from resources.settings import Settings

if __name__ == "__main__":
    settings = Settings.from_env()
    migrate(sa.create_engine(settings.database_url, poolclass=sa.NullPool))
    prepare(settings)
