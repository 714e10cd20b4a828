"""The hand-made features of 2014: what networks of video had to beat."""
