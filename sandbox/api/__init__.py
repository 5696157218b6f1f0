"""The vocabulary that both dialects and the server share: endpoints, errors, rate limits and keys.

Must not know the account or either dialect.
"""
