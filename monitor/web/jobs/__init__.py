"""What the web part knows of jobs: their state, history and who stopped them."""
