"""What several features say about a layer, a variant or a plan, worked out from plain values."""
