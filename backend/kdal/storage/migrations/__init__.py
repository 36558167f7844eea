"""How the tables came to be, step by step (Alembic): a newer kdal brings an older database up to date."""
