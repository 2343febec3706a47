"""Opens incidents by rules, and sends them to receivers until they are accepted."""
