"""The project file: one SQLite database, every edit durable at once, undo history included."""
