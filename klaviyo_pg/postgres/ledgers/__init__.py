"""Records of runs: their state, and what they have read, counted and compared. The caller owns the transaction."""
