"""HTTP itself: the application, access, limits, answers and problems, WebSockets."""
