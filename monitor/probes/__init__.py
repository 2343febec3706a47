"""Sites in, one availability result a check out."""
