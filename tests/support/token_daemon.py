"""A sidecar that asks for tokens at a listener."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daemon import Client, Daemon
from ports import free_port

TOKENS = "# of the tests\n\nfirst-token\nsecond-token   receiver-*   cron\n"


class TokenDaemon(Daemon):
    def __init__(self, directory: Path, tokens: str = TOKENS) -> None:
        self.tokens = directory / "tokens"
        self.token_port = free_port()
        if tokens:
            self.tokens.write_text(tokens)
            self.tokens.chmod(0o600)
        endpoint = f'endpoint: "tcp:{self.token_port}:interface=127.0.0.1"'
        super().__init__(directory, listen=f", {{{endpoint}, token_file: tokens}}")

    def client(self, **hello: Any) -> Client:
        return Client(("127.0.0.1", self.token_port), **hello)
