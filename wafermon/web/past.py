"""The pages that `wafermon.query` answers: jobs, runs, traces, events, errors, services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wafermon.model.messages import dumps
from wafermon.query import QUESTIONS, BadQuestion, NotThere, Query, Unavailable, answer
from wafermon.web.answers import BadArgument, arguments, text
from wafermon.web.sharing import Reply, Shared, age_taken


class Past(Resource):
    """One question. What the path says after the page's own becomes the argument `named_by_path`, where there is one; where it ends
    as `below` says, it is another question about the same."""

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        query: Callable[[], Query],
        question: str,
        named_by_path: str = "",
        below: Mapping[str, str] | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`shared` has the latest answers of all such pages; without it each is answered anew. `below`: the end of a path, such as ``/receipt`` -> the question."""
        super().__init__()
        self._query = query
        self._question = question
        self._shared = shared
        self._named_by_path = named_by_path
        self._below = below or {}

    def render_GET(self, request: Request) -> bytes | int:
        rest, question = _rest_of_path(request), self._question
        for end, other in self._below.items():
            if rest.endswith(end):
                rest, question = rest.removesuffix(end), other
        known = [name for name in QUESTIONS[question].known if name != self._named_by_path]
        try:
            given = arguments(request, *known)
        except BadArgument as problem:
            return text(request, str(problem), 400)
        if self._named_by_path:
            given[self._named_by_path] = rest
        elif rest:
            return text(request, "there is nothing below this page", 404)
        whole = None if question == self._question else {**given, self._named_by_path: _rest_of_path(request)}
        key = (question, *sorted(given.items()))
        age = age_taken(request) if self._shared is not None else 0.0
        if self._shared is None or not age:
            asked = self._answer(question, given, whole)
        else:
            asked = self._shared.reply(key, age, lambda: self._answer(question, given, whole))
        answered = Deferred.fromCoroutine(asked)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def finish(reply: Reply) -> None:
            if not gone:
                request.setResponseCode(reply.code)
                request.setHeader(b"content-type", reply.media_type)
                if reply.code == SERVICE_UNAVAILABLE:
                    request.setHeader(b"retry-after", b"1")
                request.setHeader(b"content-length", b"%d" % len(reply.body))
                request.write(reply.body if request.method != b"HEAD" else b"")
                request.finish()

        def failed(failure: Failure) -> Reply:
            self.log.failure("A question could not be answered", failure)
            return _in_words("the answer failed; the sidecar's log says why", 500)

        answered.addErrback(failed).addCallback(finish)
        return NOT_DONE_YET

    def render_HEAD(self, request: Request) -> bytes | int:
        return self.render_GET(request)

    async def _answer(self, question: str, given: Mapping[str, str], whole: Mapping[str, str] | None) -> Reply:
        """`whole`: what is asked instead where nothing is known of that: an id may end as a question below it does."""
        try:
            found: Any = await answer(self._query(), question, given)
        except BadQuestion as problem:
            return _in_words(str(problem), 400)
        except NotThere as problem:
            if whole is not None and (reply := await self._answer(self._question, whole, None)).code != 404:
                return reply
            return _as_json({"error": str(problem), "candidates": problem.candidates}, 404)
        except Unavailable as problem:
            return _as_json({"error": str(problem)}, 503)
        return _as_json(found, 200)


def _in_words(words: str, code: int) -> Reply:
    return Reply(code, b"text/plain; charset=utf-8", f"{words}\n".encode())


def _as_json(value: Any, code: int) -> Reply:
    return Reply(code, b"application/json", dumps(value).encode() + b"\n")


def _rest_of_path(request: Request) -> str:
    """An id may hold slashes."""
    return b"/".join(request.postpath or ()).decode(errors="replace")
