"""Getting images into a cloud's image service, whole or not at all."""
