"""What the figures in the documentation are made with; `benchmarks/run` runs them."""
