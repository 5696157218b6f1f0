"""Erasing people, and removing accounts."""
