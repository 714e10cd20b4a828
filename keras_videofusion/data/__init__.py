"""The ground: what a clip is, and how its pixels come out of a file."""
