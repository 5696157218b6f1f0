"""The backfill: history in planned chunks, read side by side, resumable at every batch."""
