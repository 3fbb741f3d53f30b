"""One module a screen: `read` asks the server at most twice, and returns plain data, for the page and for programs."""
