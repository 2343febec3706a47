"""Job progress from ZeroMQ to WebSocket, as the ReCodEx monitor always did, and more."""
