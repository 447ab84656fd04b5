"""Mixed precision: which layers move together, which precision each gets, what that measures; presets."""
