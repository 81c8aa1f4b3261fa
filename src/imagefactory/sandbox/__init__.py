"""Namespaces in which programs of a tree run: as their own root, without ours."""
