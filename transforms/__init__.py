"""Rows of the API into frames, one for each table. Pure polars: no network, no database, no clock."""
