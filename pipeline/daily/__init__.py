"""The daily run: everything that the account gained or changed since the last one, planned on what is stored."""
