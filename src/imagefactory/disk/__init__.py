"""The disk stage: a tree becomes a bootable disk without root, mounts or loop devices."""
