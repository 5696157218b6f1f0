"""A Klaviyo account in Postgres: the two edges (the API, the database) and the words they share."""

__version__ = "0.1.0"
