"""The embedded Postgres server: starting it, and ending it once its last user has gone."""
