"""Where trees are made: namespaces instead of root, and programs of other architectures."""
