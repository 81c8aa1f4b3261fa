"""RPM packages, repositories and a whole small distribution, made on the spot for tests."""
