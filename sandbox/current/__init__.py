"""The current dialect: the JSON:API endpoints of revision 2026-07-15. Must not import the server or the faults."""
