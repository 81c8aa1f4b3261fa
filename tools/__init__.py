"""Programs for those who work on imagefactory; none of it is installed."""
