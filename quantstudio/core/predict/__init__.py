"""The one cost model and the one accuracy prediction: cards, plans and the search use it."""
