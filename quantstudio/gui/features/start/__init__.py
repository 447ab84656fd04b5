"""The start page: sessions and projects, the samples, and a place to drop a model."""
