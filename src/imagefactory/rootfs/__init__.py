"""Root trees: how the files of an image come together. The result is always one tar file."""
