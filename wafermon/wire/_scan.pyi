from typing import Any

class Scanner:
    """See `_scan.c`."""

    shapes: list[tuple[Any, ...]]

    def __new__(cls, unset: object, seed: int) -> Scanner: ...
    def scan(self, block: bytes, now: int) -> tuple[Any, ...]: ...
    @staticmethod
    def splice(block: bytes, column: bytes, prefixes: list[bytes]) -> bytes: ...
