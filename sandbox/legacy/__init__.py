"""The legacy dialect: the endpoints of v1 and v2. Must not import the current dialect, the server or the faults."""
