"""The orchestration of a run, without Prefect: what is read, in which order, and what becomes of it."""
