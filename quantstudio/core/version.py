"""What this program is, for every room: its version, and the folder its packages lie in."""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"

# What a new process needs on its path to import the package.
ROOT = Path(__file__).resolve().parents[2]
