"""The backend's own keys of a config, checked; and the token that its file has now."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from wafermon.interfaces import FilePath, Kind, Options, Text
from wafermon.net.outgoing import Certificates, Place, parse_url
from wafermon.wire.frames import PACKERS
from wafermon.wire.hello import TOKEN_MAX


def _url(value: str) -> str:
    place = parse_url(value)
    if place.kind == "tls" and not all(map(find_spec, ("OpenSSL", "service_identity"))):
        raise ValueError(f"{value!r} needs packages that are not installed; pip install 'wafermon[tls]'")
    return value


class ForwardOptions(Options):
    """Messages to another sidecar, which takes each once."""

    claims_key: ClassVar[str] = "url"

    url: Annotated[str, AfterValidator(_url), Kind("a URL")] = Field(
        description="Where the other sidecar listens: `tls://HOST:PORT`, `tcp://HOST:PORT` or `unix:PATH`. Its listener says `forward`.",
        examples=["tls://central:7413"],
    )
    token_file: FilePath | None = Field(
        default=None,
        description="The file with the token that the other knows as `+forward=NAME`, alone in its first line. Read at each connection.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM of the authorities that the other's certificate must come from. Read at each connection, as all of these.",
        json_schema_extra={"default": "those of this machine"},
    )
    certificate: FilePath | None = Field(
        default=None, description="Our own certificate with its chain, PEM, where the other asks for one."
    )
    key: FilePath | None = Field(default=None, description="The certificate's private key, PEM.", validate_default=True)
    server_name: Text | None = Field(
        default=None,
        description="Whom the other's certificate is made out to.",
        json_schema_extra={"default": "the host of `url`"},
    )
    compress: Literal["zlib", "zstd", "none"] = Field(
        default="zlib",
        description="How frames are packed; `zstd` needs `wafermon[zstd]` here, and zlib is used where the other does not know it.",
    )

    @field_validator("compress")
    @classmethod
    def _can_be_had(cls, value: str) -> str:
        if value == "zstd" and "zstd" not in PACKERS:
            raise ValueError("needs a package that is not installed: pip install 'wafermon[zstd]'")
        return value

    @field_validator("ca_file", "certificate", "key", "server_name")
    @classmethod
    def _only_with_tls(cls, value: Any, info: ValidationInfo) -> Any:
        url = info.data.get("url")
        if value is not None and url is not None and parse_url(url).kind != "tls":
            raise ValueError(f"only a tls:// URL takes this, not {url!r}")
        if info.field_name == "key" and (value is None) != (info.data.get("certificate") is None):
            raise ValueError("`certificate` and `key` are given together")
        return value

    @property
    def claims(self) -> tuple[str, ...]:
        """What is forwarded has one mark per journal there: a second backend would move it for the first."""
        return (f"{self.url}/",)

    @property
    def place(self) -> Place:
        return parse_url(self.url)

    @property
    def certificates(self) -> Certificates:
        return Certificates(self.ca_file, self.certificate, self.key, self.server_name or "")

    @property
    def offered(self) -> list[str]:
        """The codecs to offer, the best first."""
        return {"zstd": ["zstd", "zlib"], "zlib": ["zlib"], "none": []}[self.compress]


def read_token(path: Path | None) -> str:
    """The token in the first line that says one; empty without a file. Raises ValueError with the file, and what is wrong."""
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise ValueError(f"token_file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"token_file {path}: a token is printable ASCII without spaces") from None
    words = [line.split()[0] for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not words or len(words[0]) > TOKEN_MAX or not words[0].isprintable():
        raise ValueError(
            f"token_file {path}: expected a token of up to {TOKEN_MAX} printable characters in its first line"
        )
    return words[0]
