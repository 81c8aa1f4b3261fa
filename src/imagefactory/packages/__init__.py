"""Packages: resolved and verified by apt, kept in one pool that every build shares."""
