"""Every key of a config: its type, its default, what it means. The frozen result is made of the same classes.

Sizes are bytes, times are seconds, paths are relative to the working directory, and 0 is no limit.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from wafermon.model import kafka
from wafermon.model.endpoints import check_endpoint, kind_of
from wafermon.model.units import (
    GiB,
    KiB,
    MiB,
    Rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

SEGMENTS_MIN = 4
"""A quota of fewer segments could not keep one that is written, one that is sealed and one that is read."""
SEGMENT_MIN, SEGMENT_MAX = 64 * KiB, GiB
LINE_MIN, LINE_MAX = 64 * KiB, MiB
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253})")


@dataclass(frozen=True)
class Kind:
    """What a scalar holds, in the words of the manual and of the faults."""

    name: str


class Section(BaseModel):
    """One mapping of the config."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    further_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of the mapping that are checked elsewhere."""


def _path(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise ValueError("expected a path, got none")
    return Path(value)


def _above_zero(value: float) -> float:
    if not value:
        raise ValueError("can't be 0 here; give a value above it")
    return value


def _arguments(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        arguments = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"not a command: {str(error).lower()}") from None
    if not arguments:
        raise ValueError("expected a command, got none")
    return arguments


def _rate(value: Any) -> Any:
    return value if isinstance(value, Rate) else parse_rate(value)


def _false_is_none(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("off", "no", "none"):
        raise ValueError(f"{value!r} is text here; write false for none")
    return None if value is False else value


def _user(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _endpoint(value: Any) -> Any:
    return check_endpoint(value) if isinstance(value, str) else value


def _listener(value: Any) -> Any:
    return {"endpoint": value} if isinstance(value, str) else value


def _kind_of_listener(value: Any) -> str:
    """Which of the listeners an entry of `listen` means."""
    for kind, listener in (("otlp", OtlpListener), ("kafka", KafkaListener)):
        if isinstance(value, listener) or (isinstance(value, dict) and kind in value):
            return kind
    return "lines"


def _http(value: Any) -> Any:
    """One endpoint string is a list of it, and false is an empty one."""
    if _false_is_none(value) is None:
        return ()
    if not isinstance(value, str):
        if value == []:
            raise ValueError("expected at least one endpoint; write false for none")
        return value
    if kind_of(check_endpoint(value)) == "tls":
        raise ValueError(
            f"{value!r} needs a certificate and a key: write a list, [{{endpoint: {value}, certificate: …, key: …}}]"
        )
    return [value]


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(f"expected a name such as wafermon.example.org, without scheme and port, got {value!r}")
    return value.lower().rstrip(".")


Size = Annotated[int, BeforeValidator(parse_size), Kind("a size")]
Duration = Annotated[float, BeforeValidator(parse_duration), Kind("a time")]
Count = Annotated[int, Field(ge=0), Kind("a whole number")]
Text = Annotated[str, Field(min_length=1), Kind("text")]
FilePath = Annotated[Path, BeforeValidator(_path), Kind("a path")]
Brokers = Annotated[tuple[str, ...], AfterValidator(kafka.brokers), Kind("a list of host:port")]
Topic = Annotated[str, AfterValidator(kafka.topic), Kind("a topic")]
LibraryOptions = Annotated[Mapping[str, str], BeforeValidator(kafka.as_text), Kind("a mapping of librdkafka's options")]
HostName = Annotated[str, AfterValidator(_host), Kind("a name")]
User = Annotated[str, BeforeValidator(_user), Field(min_length=1), Kind("a name or a number")]
Endpoint = Annotated[str, BeforeValidator(_endpoint), Kind("an endpoint")]
Command = Annotated[tuple[str, ...], BeforeValidator(_arguments), Kind("a command")]
Frequency = Annotated[Rate, BeforeValidator(_rate), Kind("a rate")]


class Port(Section):
    """One place to listen at, with the certificates of TLS and the owner of a Unix socket."""

    endpoint: Endpoint = Field(
        description="A Twisted endpoint string: `tcp:PORT:interface=ADDRESS`, `tcp6:PORT`, `unix:PATH:mode=660` "
        "(660 is the default mode), or `tls:PORT`, which needs `certificate` and `key`."
    )
    certificate: FilePath | None = Field(
        default=None, description="The server's certificate chain, PEM.", validate_default=True
    )
    key: FilePath | None = Field(default=None, description="The certificate's private key, PEM.", validate_default=True)
    client_ca: FilePath | None = Field(
        default=None, description="PEM of the authorities that a client's certificate must come from (mutual TLS)."
    )
    token_file: FilePath | None = Field(
        default=None,
        description="Clients must name one of this file's tokens in their hello. One token per line; after it, where it "
        "may only speak for some services, their globs: `TOKEN receiver-* cron`. Read again when it changes.",
    )
    owner: User | None = Field(default=None, description="Of a `unix:` endpoint: the user that the socket belongs to.")
    group: User | None = Field(default=None, description="Of a `unix:` endpoint: the socket's group.")

    @property
    def tls(self) -> bool:
        return kind_of(self.endpoint) == "tls"

    @field_validator("certificate", "key", "client_ca")
    @classmethod
    def _only_with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        endpoint = info.data.get("endpoint")
        if endpoint is None:
            return value
        if kind_of(endpoint) == "tls" and value is None:
            raise ValueError(f"missing; {endpoint!r} needs a certificate and a key")
        if kind_of(endpoint) != "tls" and value is not None:
            raise ValueError(f"only a tls: endpoint takes this, not {endpoint!r}; write tls:PORT there")
        return value

    @field_validator("endpoint")
    @classmethod
    def _tls_installed(cls, value: str) -> str:
        if kind_of(value) == "tls" and not all(map(find_spec, ("OpenSSL", "service_identity"))):
            raise ValueError(f"{value!r} needs packages that are not installed; pip install 'wafermon[tls]'")
        return value

    @field_validator("owner", "group", "allow_users", check_fields=False)
    @classmethod
    def _only_with_unix(cls, value: Any, info: ValidationInfo) -> Any:
        endpoint = info.data.get("endpoint")
        if value is not None and endpoint is not None and kind_of(endpoint) != "unix":
            raise ValueError(f"only a unix: endpoint takes this, not {endpoint!r}")
        if value == ():
            raise ValueError("expected at least one user, or leave the key out to let in whom the socket's mode does")
        return value


class Listener(Port):
    """One place where clients connect. A bare endpoint string is a mapping of `endpoint` alone."""

    allow_users: tuple[User, ...] | None = Field(
        default=None,
        description="Of a `unix:` endpoint: only processes of these users (names or numbers) may connect, whatever the "
        "socket's mode says. The kernel says whose process it is.",
        strict=False,
    )
    forward: Annotated[bool | tuple[str, ...], Kind("true, false, or a list of globs")] = Field(
        default=False,
        description="Whether other sidecars may forward to here: `true` for those with a token whose line says `+forward=NAME`; or a list of "
        "globs for those whose certificate's common name matches one, besides.",
    )

    @field_validator("forward", mode="before")
    @classmethod
    def _as_a_list(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if not value or not all(isinstance(one, str) and one for one in value):
                raise ValueError("expected globs of certificates' names, such as [edge-*]; or true, or false")
            return tuple(value)
        if not isinstance(value, bool):
            raise ValueError(f"expected true, false, or a list of globs, got {value!r}")
        return value

    @field_validator("forward")
    @classmethod
    def _who_forwards_is_known(cls, value: bool | tuple[str, ...], info: ValidationInfo) -> bool | tuple[str, ...]:
        if value is True and "token_file" in info.data and info.data["token_file"] is None:
            raise ValueError("needs `token_file`: a sidecar that forwards is known by its token's +forward=NAME")
        if isinstance(value, tuple) and "client_ca" in info.data and info.data["client_ca"] is None:
            raise ValueError("globs of certificates' names need `client_ca`, which vouches for the names")
        return value


class OtlpListener(Listener):
    """One place where programs send OpenTelemetry's OTLP over HTTP."""

    endpoint: Endpoint = Field(
        alias="otlp",
        description="In place of `endpoint`: there OTLP over HTTP is taken, in JSON and (with `wafermon[otlp]`) protobuf. A token comes as "
        "`Authorization: Bearer TOKEN`.",
        examples=["tcp:4318:interface=127.0.0.1"],
    )


class KafkaSource(Section):
    """Topics of Kafka that messages are read from."""

    brokers: Brokers = Field(
        description="Some of the cluster's brokers; the others are found.", examples=[["b1:9092"]], strict=False
    )
    topics: tuple[Topic, ...] = Field(description="What is read.", examples=[["wafermon"]], strict=False)
    partitions: Annotated[
        tuple[int, ...] | None, BeforeValidator(kafka.partitions), Kind("all, or a list of partitions")
    ] = Field(
        default=None,
        description="Which partitions of each topic are read here: `all`, also those that come later, or a list such as `[0-3, 7]`. Each "
        "partition is for one sidecar.",
        json_schema_extra={"default": "all"},
    )
    group: Text | None = Field(
        default=None,
        description="Share the partitions with the other members of this consumer group, as Kafka divides them, instead of naming them. After "
        "a crash some messages may be read by two members.",
    )
    options: LibraryOptions = Field(
        default_factory=dict,
        description="Any option of [librdkafka](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), such as "
        "`security.protocol` or `sasl.username`. What the sidecar has to set itself is refused.",
    )

    @field_validator("topics")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("expected some topics, each once")
        return value

    @field_validator("group")
    @classmethod
    def _not_both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("partitions") is not None:
            raise ValueError("the group says which partitions are read; leave `partitions` or `group` out")
        return value

    @field_validator("options")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return kafka.checked_options(value, {"group.id": "wafermon"})

    @property
    def place(self) -> str:
        """For people."""
        return f"kafka {self.brokers[0]} {','.join(self.topics)}"

    def overlaps(self, other: KafkaSource) -> bool:
        """Whether both may read one partition, as far as a config tells."""
        if not set(self.brokers) & set(other.brokers) or not set(self.topics) & set(other.topics):
            return False
        if self.group != other.group or self.partitions is None or other.partitions is None:
            return True
        return bool(set(self.partitions) & set(other.partitions))


class KafkaListener(Section):
    """An entry of `listen` that reads from Kafka."""

    kafka: KafkaSource = Field(description="Topics that are read, each message once into this journal.")

    @field_validator("kafka", mode="before")
    @classmethod
    def _can_be_had(cls, value: Any) -> Any:
        if not kafka.is_there():
            raise ValueError(kafka.MISSING)
        return value


Part = Literal["health", "metrics", "api", "page"]


class HttpListener(Port):
    """One place where HTTP is served. A bare endpoint string is a mapping of `endpoint` alone."""

    token_file: FilePath | None = Field(
        default=None,
        description="Requests must carry one of this file's tokens: `Authorization: Bearer TOKEN`. The file is as that of `listen`; what "
        "follows a token there does not matter here. Read again when it changes.",
    )
    serve: tuple[Part, ...] = Field(
        default=("health", "metrics", "api", "page"),
        description="What is served there: `health`, `metrics`, `api` (what the commands and other programs ask) and `page` (`/`).",
        strict=False,
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Further names by which browsers may ask for `api` and `page` where neither a token nor a client's certificate is asked "
        "for. Addresses, `localhost` and this machine's names need none.",
        strict=False,
    )

    @property
    def guarded(self) -> bool:
        """Whether it asks for a token or a client's certificate."""
        return self.token_file is not None or self.client_ca is not None

    @property
    def serves_api(self) -> bool:
        return "api" in self.serve

    @field_validator("serve")
    @classmethod
    def _something(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if not value:
            raise ValueError("expected at least one of health, metrics, api, page, or leave the key out for all")
        return value


class Journal(Section):
    """Where accepted messages are kept until every backend has them."""

    dir: FilePath = Field(default=Path("wafermon-data/journal"), description="Its directory; made at the first start.")
    segment_bytes: Size = Field(
        default=64 * MiB,
        description="A segment of this size is sealed and the next one begun: "
        f"{format_size(SEGMENT_MIN)} to {format_size(SEGMENT_MAX)}. Space is given back by segments.",
    )
    max_bytes: Size = Field(
        default=GiB,
        description=f"Its quota, at least {SEGMENTS_MIN} segments. When it is full the receivers pause, and nothing is "
        "lost: the SDKs keep their messages.",
        validate_default=True,
    )
    sync: Literal["always", "interval", "never"] = Field(
        default="always",
        description="When the disk must have a message: `always` acknowledges after `fdatasync`, `interval` syncs each "
        "second and `never` leaves it to the system; both acknowledge after the write, so that a power cut may lose "
        "acknowledged messages. A killed process loses none in either.",
    )
    spill_dir: Annotated[FilePath | None, BeforeValidator(_false_is_none), Kind("a path or false")] = Field(
        default=None,
        description="Spill files whose SDK is gone are taken up from here; `false` takes up none.",
        json_schema_extra={
            "default": "where SDKs spill: `WAFERMON_SPILL_DIR`, else `/var/spool/wafermon` if it is writable, else "
            "`/tmp/wafermon-UID`"
        },
    )

    spill_owners: Mapping[User, Annotated[tuple[Text, ...], Kind("a list of globs"), Field(strict=False)]] = Field(
        default={},
        description="Where a listener's tokens are bound to services: the services, as globs, for which the spill files of "
        "a user (name or number) may speak. The lines of others become dead letters, `unauthorized`.",
        strict=False,
    )

    @field_validator("segment_bytes")
    @classmethod
    def _within_bounds(cls, value: int) -> int:
        if not SEGMENT_MIN <= value <= SEGMENT_MAX:
            limits = f"{format_size(SEGMENT_MIN)} to {format_size(SEGMENT_MAX)}"
            raise ValueError(f"expected {limits}, got {format_size(value)}")
        return value

    @field_validator("max_bytes")
    @classmethod
    def _enough_segments(cls, value: int, info: ValidationInfo) -> int:
        segment = info.data.get("segment_bytes", 0)
        if 0 < value < SEGMENTS_MIN * segment:
            raise ValueError(
                f"{format_size(value)} is under {SEGMENTS_MIN} segments of {format_size(segment)}; "
                f"expected at least {format_size(SEGMENTS_MIN * segment)}, or a smaller segment_bytes"
            )
        return value


class Limits(Section):
    """What one client, or all of them, may ask of the sidecar."""

    max_line_bytes: Size = Field(
        default=LINE_MIN,
        description=f"The longest line, without its newline: {format_size(LINE_MIN)} to {format_size(LINE_MAX)}.",
    )
    max_connections: Count = Field(default=10_000, description="Connections at a time, over all listeners.")
    frame_bytes: Annotated[Size, AfterValidator(_above_zero)] = Field(
        default=4 * MiB,
        description="The largest compressed frame, by the bytes of its lines; a quarter of `journal.segment_bytes` where that is less.",
    )
    partial_bytes: Size = Field(
        default=64 * MiB,
        description="Memory for lines and frames that have begun and not ended, and for errors that clients do not read, "
        "over all clients.",
    )
    first_line: Duration = Field(
        default=30.0, description="A connection that has sent no whole line after this time is closed."
    )
    idle_timeout: Duration = Field(
        default=3600.0, description="A connection that has sent nothing for this time is closed."
    )
    messages_per_second: Count = Field(
        default=0,
        description="What one client may send, over reconnects too; without a hello, one connection. Beyond it, reading pauses; no "
        "message is refused.",
    )

    @field_validator("max_line_bytes")
    @classmethod
    def _within_the_protocol(cls, value: int) -> int:
        if not LINE_MIN <= value <= LINE_MAX:
            raise ValueError(f"expected {format_size(LINE_MIN)} to {format_size(LINE_MAX)}, got {format_size(value)}")
        return value


class Correlation(Section):
    """How jobs and traces are followed."""

    stalled_after: Duration = Field(
        default=300.0, description="A job without progress for this time is reported as stalled."
    )
    trace_idle: Duration = Field(default=600.0, description="A trace without a message for this time has ended.")
    trace_max: Duration = Field(
        default=86_400.0, description="A trace older than this is summed up, and goes on as a new part."
    )
    max_traces: Count = Field(
        default=20_000, description="Traces followed at a time; beyond it the idlest one ends early."
    )
    derive: Literal["here", "never"] | None = Field(
        default=None,
        description="Where summaries of traces, and events such as `job_stalled`, are made: `here`, or `never`, where they are left to "
        "the sidecar that this one forwards to, or to those that write to the topics of Kafka that are read here. Jobs are followed, and receipts told, in either.",
        json_schema_extra={"default": "`never` where a backend forwards or topics of Kafka are read, else `here`"},
    )
    after_start: Duration = Field(
        default=60.0,
        description="After a start nothing that is due by a schedule is judged for this time: what clients have kept comes first.",
    )


class DeadLetters(Section):
    """Where messages go that no backend can take, or that no rule takes."""

    dir: FilePath = Field(
        default=Path("wafermon-data/dead-letters"),
        description="Their directory.",
        json_schema_extra={"default": "`dead-letters` beside `journal.dir`"},
    )
    max_bytes: Size = Field(
        default=256 * MiB, description="Their quota. When it is full the oldest file goes, counted and shown in health."
    )


NotableKind = Literal[
    "job_stalled", "gone", "job_failed", "span_abandoned", "dropped",
    "not_started", "late", "silent", "too_long", "too_fast", "overlapping", "failed", "recovered",
]  # fmt: skip
"""See `wafermon.model.notable.KINDS`."""


class Hooks(Section):
    """A command that is told about what should not wait. Without this section there is none."""

    command: Command = Field(
        description="Run without a shell, with the event as JSON on its standard input. Words in quotes stay together."
    )
    on: tuple[NotableKind, ...] = Field(
        default=(
            "job_stalled", "gone", "job_failed", "dropped",
            "not_started", "late", "silent", "too_long", "too_fast", "overlapping", "failed", "recovered",
        ),
        description="What it is told about. What stands from `not_started` on is told of schedules.",
        strict=False,
    )  # fmt: skip
    at_most: Frequency = Field(default=Rate(10, 60.0), description="How often it runs; the rest is counted and logged.")


class BatchLimits(Section):
    """A batch is handed to the backend when it reaches the first of these."""

    messages: Count = Field(default=5000, description="Messages in a batch.")
    bytes: Size = Field(default=4 * MiB, description="Bytes in a batch. A longer single message goes by itself.")
    age: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=0.2, description="How long the oldest message of a batch waits for company."
    )

    @field_validator("bytes")
    @classmethod
    def _bounded(cls, value: int, info: ValidationInfo) -> int:
        if not value and info.data.get("messages") == 0:
            raise ValueError("messages and bytes can't both be without limit; give one of them")
        return value


class Retry(Section):
    """How a batch is tried again: exponential backoff with full jitter."""

    initial: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=0.1, description="The longest wait before the first retry; it doubles with each one."
    )
    max: Duration = Field(default=30.0, description="The longest wait there is.", validate_default=True)
    give_up: Duration = Field(
        default=900.0,
        description="A backend that refuses 20 messages in a row, and takes none between, counts as failing: the next one is "
        "tried for so long before it becomes a dead letter, and from then on one with each wait, until a message is taken. "
        "0: for ever.",
    )

    @field_validator("max")
    @classmethod
    def _above_initial(cls, value: float, info: ValidationInfo) -> float:
        if 0 < value < info.data.get("initial", 0):
            raise ValueError("expected at least as long as initial")
        return value


class BackendKeys(Section):
    """What every backend takes; the other keys are its plugin's own."""

    plugin: Text = Field(description="Which kind of backend: `filesystem`, `timescaledb`, or another installed plugin.")
    batch: BatchLimits = Field(default=BatchLimits(), description="How messages are grouped for one write.")
    retry: Retry = Field(default=Retry(), description="How often a failed write is tried again.")
    timeout: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=60.0,
        description="How long the backend may take to open, to store a batch, or to close, before it counts as failing. It is "
        "waited for all the same: only a stop gives it up (`stop_within`).",
    )
    when_full: Literal["pause", "skip"] = Field(
        default="pause",
        description="When the journal is full and this backend is the one that lags: `pause` the receivers until it "
        "catches up, or `skip` its oldest segments, counted and shown in health.",
    )
    on_remove: Literal["keep", "drain", "discard"] = Field(
        default="keep",
        description="When a reload removes it: `keep` its cursor, and the journal from there on, for its return; "
        "`drain` delivers what it still has to get and then forgets it; `discard` forgets it at once.",
    )


class BackendConfig(BackendKeys):
    """One configured backend, checked."""

    name: str
    options: Any = None
    """What the plugin's `configure` returned, for its `build`."""


class RouteKeys(Section):
    """One rule as the config writes it."""

    match: dict[str, Any] = Field(
        default={},
        description="Conditions, which must all hold: `service`, `type`, `level`, `host`. A value is a glob or a list "
        'of globs, of which one must match; a level may be compared, as in `">=warning"`. Only events have a level: '
        "nothing else matches a rule that names one. Without conditions the rule takes everything.",
    )
    to: Annotated[tuple[Text, ...], Kind("a list of backends")] = Field(
        description="The backends that a message goes to. `[]` discards it on purpose.", strict=False
    )


ListenEntry = Annotated[
    Annotated[Listener, Tag("lines")] | Annotated[OtlpListener, Tag("otlp")] | Annotated[KafkaListener, Tag("kafka")],
    Discriminator(_kind_of_listener),
    BeforeValidator(_listener),
    Kind("an endpoint, or a mapping with one"),
]
HttpEntry = Annotated[HttpListener, BeforeValidator(_listener), Kind("an endpoint, or a mapping with one")]


class Settings(Section):
    """The keys that stand alone."""

    further_keys: ClassVar[tuple[str, ...]] = ("backends", "routes", "schedules", "alerts")

    listen: tuple[ListenEntry, ...] = Field(
        default=(Listener(endpoint="tcp:7411:interface=127.0.0.1"),),
        description="Where clients connect: endpoint strings, or mappings where a listener needs more.",
        strict=False,
    )
    http: Annotated[
        tuple[HttpEntry, ...], BeforeValidator(_http), Kind("an endpoint, false, or a list of endpoints and mappings")
    ] = Field(
        default=(HttpListener(endpoint="tcp:7412:interface=127.0.0.1"),),
        description="Where health, metrics, the API and the page are served: one endpoint string, a list of endpoint strings and mappings, "
        "or `false`.",
        strict=False,
    )
    journal: Journal = Field(default=Journal(), description=Journal.__doc__)
    limits: Limits = Field(default=Limits(), description=Limits.__doc__)
    correlation: Correlation = Field(default=Correlation(), description=Correlation.__doc__)
    dead_letters: DeadLetters = Field(default=DeadLetters(), description=DeadLetters.__doc__)
    hooks: Hooks | None = Field(default=None, description=Hooks.__doc__)
    reload: Literal["watch", "signal"] = Field(
        default="watch",
        description="When this file is read again: `watch` when the file changes, and at SIGHUP; `signal` at SIGHUP.",
    )

    stop_within: Annotated[Duration, AfterValidator(_above_zero)] = Field(
        default=20.0,
        description="How long a stop may take, all in. What has not ended by then (a hung disk, a backend without an answer) "
        "is named in the log and left, and the process ends. Nothing that was acknowledged is lost: it is delivered after the "
        "next start. Of 20 s a backend has 5 to take what is pending (none where it has not answered for its `timeout`) and 5 more "
        "to answer and close; then it is left, beside the others. A shorter `stop_within` shortens all of it, a longer one gives "
        "more to the second.",
    )

    @field_validator("listen")
    @classmethod
    def _reachable(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("expected at least one endpoint, or leave the key out for its default")
        return value

    @property
    def ports(self) -> tuple[Listener, ...]:
        """Those of `listen` that have an endpoint."""
        return tuple(one for one in self.listen if isinstance(one, Listener))

    @property
    def sources(self) -> tuple[KafkaSource, ...]:
        """Those of `listen` that read from Kafka."""
        return tuple(one.kafka for one in self.listen if isinstance(one, KafkaListener))
