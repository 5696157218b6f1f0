"""The legacy dialect of the API: v1 and v2, which Klaviyo retired on 2024-06-30."""
