"""What the `wafermon` command does, one module a subcommand. Nothing here is imported before it is asked for."""
