"""The Klaviyo side: HTTP, and one protocol that both dialects of the API implement."""
