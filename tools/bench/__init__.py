"""`make bench`: what a tree, a disk and a whole image take, beside what others take for the same.

One run gives one table of ratios; seconds of different machines, or of different hours on a
busy one, say little. Each module measures one group of rows and yields them as they are done.
"""
