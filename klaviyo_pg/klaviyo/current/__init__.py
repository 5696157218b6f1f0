"""The current dialect of the API: JSON:API, revision 2026-07-15."""
