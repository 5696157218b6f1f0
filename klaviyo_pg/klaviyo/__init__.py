"""The Klaviyo side: HTTP, the dialects of the API, and the rows that all of them are read into."""
