"""QuantStudio: make neural networks smaller and faster, and see what it costs."""

__version__ = "0.1.0"
