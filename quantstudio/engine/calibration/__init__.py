"""Streaming activation histograms and the ranges read off them."""
