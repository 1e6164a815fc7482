"""`@sdk.span("name")` around coroutine functions and generators.

What such a function returns runs later, so the span begins and ends with that. It is current only while the function's
own code runs: the code that takes a generator's items is not inside its span in between.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, AsyncGenerator, Awaitable, Callable, Generator


class _Steps:
    """A span, and the steps of what runs inside it: each begins in the scope where the last one stopped."""

    def __init__(self, span: Any, sdk: Any) -> None:
        self._span = span
        self._sdk = sdk
        self._outside = sdk._scope.get()
        span.__enter__()
        self._inside = sdk._scope.get()
        sdk._enter(self._outside)

    def __enter__(self) -> None:
        self._outside = self._sdk._scope.get()
        self._sdk._enter(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = self._sdk._scope.get()
        self._sdk._enter(self._sdk._alive(self._outside))

    def end(self, error: BaseException | None = None) -> None:
        with self:
            self._span.__exit__(type(error) if error else None, error, None)


def spanned(make: Callable[[], Any], sdk: Any, function: Any) -> Any:
    """The function with a span of its own around each coroutine or generator that it returns."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **named: Any) -> Any:
            with make():
                return await function(*args, **named)

        return coroutine
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **named: Any) -> AsyncGenerator[Any, Any]:
            inner = function(*args, **named)
            steps = _Steps(make(), sdk)
            try:
                step: Awaitable[Any] = inner.asend(None)
                while True:
                    with steps:
                        item = await step
                    try:
                        step = inner.asend((yield item))
                    except GeneratorExit:
                        with steps:
                            await inner.aclose()
                        raise
                    except BaseException as error:
                        step = inner.athrow(error)
            except StopAsyncIteration:
                steps.end()
            except BaseException as error:
                steps.end(error)
                raise

        return stream

    @functools.wraps(function)
    def generator(*args: Any, **named: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **named)
        steps = _Steps(make(), sdk)
        step, given = inner.send, None
        try:
            while True:
                with steps:
                    item = step(given)
                try:
                    step, given = inner.send, (yield item)
                except GeneratorExit:
                    with steps:
                        inner.close()
                    raise
                except BaseException as error:
                    step, given = inner.throw, error
        except StopIteration as stop:
            steps.end()
            return stop.value
        except BaseException as error:
            steps.end(error)
            raise

    return generator
