"""`python -m imagefactory` is `imagefactory`."""

from imagefactory.cli import main

main(prog_name="imagefactory")
