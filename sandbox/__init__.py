"""A Klaviyo account in a box: a deterministic account that answers over real HTTP, for tests, demos and benchmarks."""
