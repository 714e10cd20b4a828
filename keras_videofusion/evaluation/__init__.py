"""A network and a catalog in; scores, figures and pictures out."""
