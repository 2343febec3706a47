"""Sockets that others connect to, shared by the parts that listen."""
