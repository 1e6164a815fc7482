"""Who may come in by a listener: by token, by user, and after the files have changed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wafermon.config import Listener
from wafermon.model.errors import ProtocolError
from wafermon.net.principals import Principal
from wafermon.receivers.lines.admission import Admission


class Transport:
    """The sidecar's end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def getHandle(self) -> socket.socket:
        return self._end


@pytest.fixture
def here() -> Iterator[Transport]:
    """A connection of this process over a Unix socket."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        yield Transport(one)


@pytest.fixture
def far() -> Iterator[Transport]:
    """One of which the kernel says nothing."""
    with socket.socket(socket.AF_INET) as end:
        yield Transport(end)


def tokens(directory: Path, text: str) -> Path:
    path = directory / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    return path


def listener(**asks: Any) -> Listener:
    return Listener(endpoint="tcp:0", **asks)


def refusal(admission: Admission, token: str, transport: Any) -> str:
    with pytest.raises(ProtocolError) as refused:
        admission.admit(token, transport)
    assert refused.value.code == "unauthorized"
    return refused.value.detail


def test_without_conditions_everybody_comes_in_as_who_the_kernel_says(here: Transport, far: Transport) -> None:
    admission = Admission(listener())
    assert admission.admit("", here) == Principal(f"uid:{os.getuid()}")
    assert admission.admit("whatever", far) == Principal("")
    assert admission.still_admits(Principal(""), far)
    assert admission.credentials is None
    assert not admission.binds_services
    assert not admission.refresh()


def test_only_the_users_that_are_named_come_in(here: Transport, far: Transport) -> None:
    mine = Admission(Listener(endpoint="unix:/run/x", allow_users=(str(os.getuid()),)))
    assert mine.admit("", here) == Principal(f"uid:{os.getuid()}")
    assert mine.still_admits(Principal(f"uid:{os.getuid()}"), here)
    assert "user None may not connect here (`allow_users`)" in refusal(mine, "", far)
    other = Admission(Listener(endpoint="unix:/run/x", allow_users=("65534",)))
    assert f"user {os.getuid()} may not connect here" in refusal(other, "", here)
    assert not other.still_admits(Principal(f"uid:{os.getuid()}"), here)


def test_only_known_tokens_come_in_whoever_brings_them(tmp_path: Path, here: Transport, far: Transport) -> None:
    admission = Admission(listener(token_file=tokens(tmp_path, "first\nsecond web-*\n")))
    assert admission.admit("first", here) == admission.admit("first", far)
    assert admission.admit("first", far).name.startswith("token:")
    assert admission.admit("second", far).services == ("web-*",)
    assert refusal(admission, "", far) == "this listener asks for a token: WAFERMON_TOKEN, `token` in the hello"
    assert refusal(admission, "firs", far) == "this token is not known here"
    assert admission.binds_services


def test_a_token_that_is_taken_back_admits_no_more(tmp_path: Path, far: Transport) -> None:
    path = tokens(tmp_path, "first\nsecond\n")
    admission = Admission(listener(token_file=path))
    first, second = (admission.admit(token, far) for token in ("first", "second"))
    assert not admission.binds_services
    assert not admission.refresh()
    tokens(tmp_path, "second\nthird\n")
    assert admission.refresh()
    assert not admission.still_admits(first, far)
    assert admission.still_admits(second, far)
    refusal(admission, "first", far)
    tokens(tmp_path, "second web-*\n")
    assert admission.refresh()
    assert not admission.still_admits(second, far), "it may speak for fewer services now"


def test_token_and_user_are_both_asked_for(tmp_path: Path, here: Transport) -> None:
    asks: dict[str, Any] = {"token_file": tokens(tmp_path, "first\n"), "allow_users": ("65534",)}
    admission = Admission(Listener(endpoint="unix:/run/x", **asks))
    assert "may not connect" in refusal(admission, "first", here)
    assert not admission.still_admits(Principal(""), here)


def test_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"token_file .*absent: No such file"):
        Admission(listener(token_file=tmp_path / "absent"))
