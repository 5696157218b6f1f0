"""The Prefect tasks: thin units of retry over the library. Small values cross their boundaries, nothing else."""

from tasks.logs import configure_early, quiet

quiet()
configure_early()
