"""A Klaviyo account in Postgres: the API client, the database, and the vocabulary that they share."""

__version__ = "0.1.0"
