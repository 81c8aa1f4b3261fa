"""Builds, boot-tests and uploads OpenStack images for every processor architecture."""

__version__ = "0.1.0"
