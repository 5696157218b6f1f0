"""Counts reconciled with the source: compared, read again where they differ, and reported."""
