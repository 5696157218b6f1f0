"""The check of an account and of the database before a first run, with a forecast of the requests. Writes nothing."""
