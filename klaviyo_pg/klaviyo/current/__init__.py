"""The current dialect of the API: JSON:API, in the revisions that `revisions` names."""
