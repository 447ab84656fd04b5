"""Parts of the window, wired to the session."""
