"""The API key that every sandbox accepts."""

API_KEY = "pk_sandbox"
ALL_SCOPES = "*"
