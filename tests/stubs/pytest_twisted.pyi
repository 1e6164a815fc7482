# pytest-twisted comes without types. This is what the tests use of it.
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

def ensureDeferred(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]: ...
def stop_twisted_greenlet() -> None: ...
