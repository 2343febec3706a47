"""The live page's WebSocket: what each page sees, and when it changes."""
