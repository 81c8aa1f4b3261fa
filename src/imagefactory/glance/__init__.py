"""Uploads to Glance."""
