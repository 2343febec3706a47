"""What everybody may see without a token: the status page, the badges and the feed of incidents."""
