"""Faults that requests can meet: broken connections, wrong answers and misleading pages. Must not know the account."""
