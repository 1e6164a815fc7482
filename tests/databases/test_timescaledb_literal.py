"""Lines as an SQL literal: whatever is in them, the server reads what was written."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import Postgres

from wafermon.backends.timescaledb.statements import literal
from wafermon.contract import line


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), min_size=1, max_size=20
    )
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(postgres: Postgres, texts: list[str]) -> None:
    raw = b"".join(line(n, message=text, context={text: text}) + b"\n" for n, text in enumerate(texts))
    rows = postgres.query(
        "SELECT message, context FROM json_to_recordset("
        + b"".join(literal(raw)).decode()
        + ") AS x(message text, context jsonb)"
    )
    assert rows == [(text, {text: text}) for text in texts]
