"""Steps that make the float network itself smaller, and what they know of its structure."""
