"""The Postgres side: SQL composed from the catalogue, and the transactions that run it. Knows no HTTP, no Prefect."""
