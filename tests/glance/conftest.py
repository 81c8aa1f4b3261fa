"""The fixtures of the tests that talk to a real Glance."""

from tests.glance.cloud import glance_cloud, glance_service

__all__ = ["glance_cloud", "glance_service"]
