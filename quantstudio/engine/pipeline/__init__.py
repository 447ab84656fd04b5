"""Steps of a recipe: what there are, and how they are run one after the other."""
