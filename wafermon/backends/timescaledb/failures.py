"""What PostgreSQL complains about -> what is to be done about it. Decided by SQLSTATE, not by the class of exception.

A connection that can't be made has no SQLSTATE in libpq: there, the server's words are looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg2


class Silent(Exception):
    """The server has not answered in time, and the connection is closed."""


class Unsuitable(Exception):
    """A server that can be reached and can't be used; the text says what to do."""


@dataclass(frozen=True)
class Failure:
    """One failure."""

    text: str
    """What went wrong and what a person can do, in one line that is the same whenever it happens again."""
    permanent: bool = False
    """It is these rows that the server refuses."""
    lost: bool = True
    """The connection is of no more use."""
    code: str = ""
    """The SQLSTATE, where there is one."""


def failure_of(error: Exception, target: str) -> Failure:
    """`target` says where the connection leads to."""
    if not isinstance(error, psycopg2.Error):
        if isinstance(error, (Silent, Unsuitable, OSError)):
            return Failure(f"{target}: {error}")
        return Failure(f"{target}: the connection was lost")
    code = error.pgcode
    if code is None:
        text = " ".join(str(error).partition("\n")[0].split())
        advice = next((advice for words, advice in _WORDS if re.search(words, text)), "")
        return Failure(f"{target}: {text or 'the connection was lost'}{advice and '; ' + advice}")
    said = (error.diag.message_primary or str(error)).strip()
    if code[:2] in _ROWS_AT_FAULT or code in _ROWS_AT_FAULT:
        return Failure(f"{said} (SQLSTATE {code})", permanent=True, lost=False, code=code)
    advice = _ADVICE.get(code) or _ADVICE.get(code[:2], "look at the server's log")
    return Failure(f"{target}: {said} (SQLSTATE {code}); {advice}", lost=code not in _PASSING)


_ROWS_AT_FAULT = {
    "22",  # data exception
    "23",  # integrity constraint violation
    "54000",  # program limit exceeded: a value is too large for its index, say
}
_PASSING = {"40001", "40P01", "55P03", "53100", "53200", "57014"}
"""The transaction is rolled back and the connection is as good as before."""
_ADVICE = {
    "08": "the connection is made anew",
    "25006": "the server is read-only: a standby, or one that failed over; the dsn may name several hosts",
    "28": "look at user, password and pg_hba.conf",
    "3D000": "create the database, or name another one in the dsn",
    "3F000": "create the schema, or let the user create it",
    "40": "tried again",
    "42501": "grant the user the missing rights: it creates and fills the tables of its schema",
    "42P01": "no sidecar has written here yet, or a table of its own was dropped",
    "42": "the tables are not as wafermon made them: look at what was changed",
    "53100": "the server's disk is full: free space there",
    "53200": "the server is out of memory",
    "53300": "raise max_connections, or close other connections",
    "53": "the server has run out of something it needs",
    "55P03": "something else has locked the tables: look at pg_locks",
    "57014": "raise the backend's `timeout`, or see why the server is slow",
    "57P01": "the server is shut down or restarted",
    "57P02": "the server is restarted after a crash",
    "57P03": "the server starts, or stops",
    "58": "the server's disk fails: look at its log",
    "XX": "the server is damaged: look at its log",
}
_WORDS = (
    ("password authentication failed", "correct the password: password_file, passfile or PGPASSWORD"),
    ("no password supplied", "give a password: password_file, passfile or PGPASSWORD"),
    ("no pg_hba.conf entry", "let the user in by pg_hba.conf"),
    ("Peer authentication failed", "let the user in by pg_hba.conf, or connect by TCP with a password"),
    ("too many clients", "raise max_connections, or close other connections"),
    ("remaining connection slots", "raise max_connections, or close other connections"),
    ("too many connections", "raise the limit of the user or the database, or close other connections"),
    (r"database .* does not exist", "create the database, or name another one in the dsn"),
    (r"role .* does not exist", "create the user, or name another one in the dsn"),
    ("Connection refused", "see that the server runs and listens there"),
    ("No such file or directory", "see that the server runs and listens there"),
    ("starting up", "the server starts"),
    ("shutting down", "the server stops"),
    ("recovery|not yet accepting", "the server recovers"),
)
