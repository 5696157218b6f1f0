"""The queries of the views, composed from the catalogue, and the schema of views over one account."""
