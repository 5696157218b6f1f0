"""What runs record about themselves and about what they have read. The caller owns the transaction."""
