"""The Postgres side: statements composed from the catalogue, and the transactions that run them. Knows no HTTP."""
