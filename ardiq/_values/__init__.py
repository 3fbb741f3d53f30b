"""Plain values and rules about them: no server, no event loop."""
