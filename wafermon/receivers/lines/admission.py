"""Who may come in by one listener: certificates, tokens, and the users of a Unix socket."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from wafermon.model.errors import ProtocolError
from wafermon.model.settings import Listener
from wafermon.net.principals import Principal, common_name, peer_uid, user_ids
from wafermon.net.tokens import FORWARD_NAME, TokenFile


class Admission:
    """What a listener asks of its clients."""

    def __init__(self, listener: Listener) -> None:
        """Reads the files that the listener names. Raises ValueError with everything a person has to know."""
        self._tokens = TokenFile(listener.token_file) if listener.token_file else None
        self._users = user_ids(listener.allow_users) if listener.allow_users else None
        self._forward = listener.forward
        self.credentials: Any = None
        """A `tls.Credentials`, for a `tls:` listener."""
        if listener.tls:
            from wafermon.net.tls import Credentials

            self.credentials = Credentials(listener)

    def admit(self, token: str, transport: Any) -> Principal:
        """Whose connection this is; asked once, at its first line. Raises ProtocolError with ``unauthorized``."""
        uid = peer_uid(transport)
        if self._users is not None and uid not in self._users:
            raise ProtocolError("unauthorized", f"user {uid} may not connect here (`allow_users`)")
        if self._tokens is None:
            return Principal("" if uid is None else f"uid:{uid}")
        if not token:
            raise ProtocolError("unauthorized", "this listener asks for a token: WAFERMON_TOKEN, `token` in the hello")
        principal = self._tokens.find(token)
        if principal is None:
            raise ProtocolError("unauthorized", "this token is not known here")
        return principal

    def forwards_as(self, principal: Principal, transport: Any) -> str:
        """As which sidecar the admitted client may forward. Raises ProtocolError with ``unauthorized``."""
        if self._forward is False:
            raise ProtocolError("unauthorized", "no sidecar may forward to this listener (`forward` of `listen`)")
        if principal.forward:
            return principal.forward
        if self._forward is True:
            raise ProtocolError("unauthorized", "this token may not forward: its line needs +forward=NAME")
        name = common_name(transport)
        if not FORWARD_NAME.fullmatch(name) or not any(fnmatchcase(name, glob) for glob in self._forward):
            raise ProtocolError("unauthorized", f"the certificate of {name!r} may not forward (`forward` of `listen`)")
        return name

    def still_forwards_as(self, principal: Principal, transport: Any, name: str) -> bool:
        """Whether it would be let forward again."""
        try:
            return self.forwards_as(principal, transport) == name
        except ProtocolError:
            return False

    def still_admits(self, principal: Principal, transport: Any) -> bool:
        """Whether a connection that was let in would be again."""
        if self._users is not None and peer_uid(transport) not in self._users:
            return False
        return self._tokens is None or self._tokens.holds(principal)

    @property
    def binds_services(self) -> bool:
        """Whether some client may speak for some services alone."""
        return self._tokens is not None and self._tokens.binds_services

    def refresh(self) -> bool:
        """Look at the tokens again; tells whether other clients may be admitted now."""
        return self._tokens is not None and self._tokens.refresh()
