"""What the backends that speak to AWS, or to a server with the same API, have in common. It is no backend itself."""
