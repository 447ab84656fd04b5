"""The features of the window: one folder each; they never import each other."""
