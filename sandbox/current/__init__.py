"""The current dialect: the JSON:API endpoints, in its revisions. Must not import the server or the faults."""
