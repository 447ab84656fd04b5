"""Results to HTML, CSV and JSON."""
