"""What happened, on one clock: incidents, rollouts, errors in logs, gaps of the feed."""
