"""The HTTP server: routing, rate limits, faults and the control API, on top of both dialects."""
