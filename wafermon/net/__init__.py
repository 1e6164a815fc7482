"""Ports, TLS, tokens, and the users at the other end of a Unix socket."""
