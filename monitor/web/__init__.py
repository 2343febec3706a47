"""The HTTP server: API, WebSockets, live page, metrics and health. Only this imports FastAPI."""
