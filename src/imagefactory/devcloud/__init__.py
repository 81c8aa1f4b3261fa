"""A real Keystone and Glance on the loopback, for those who have no cloud at hand."""
