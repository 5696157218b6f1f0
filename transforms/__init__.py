"""Rows of the API turned into frames, one for each table. Pure polars: no network, no database, no clock."""
