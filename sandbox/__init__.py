"""A simulated Klaviyo account: a deterministic account, served over real HTTP, for tests, demos and benchmarks."""
