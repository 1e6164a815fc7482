package MonitoringSDK;

# The calls: each checks its arguments, encodes one message and offers it to the stream, else to the buffer, else to the
# spill. MonitoringSDK::Stream speaks with the sidecar, MonitoringSDK::Spill keeps the files, MonitoringSDK::Encoder makes
# the JSON. Promises: no call blocks or dies because of the network; a message's content is fixed when the call returns;
# always: called = acked + rejected + dropped + waiting + handed_over.

use 5.014;
use strict;
use warnings;
use Carp ();
use MonitoringSDK::Encoder qw(MAX_LINE float object shorten string tags);
use MonitoringSDK::Random qw(hex_id);
use MonitoringSDK::Spill ();
use MonitoringSDK::Stream ();
use MonitoringSDK::Target ();
use POSIX ();
use Scalar::Util qw(looks_like_number refaddr weaken);
use Sys::Hostname ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime time);

our $VERSION = '2.0.0';
our @CARP_NOT = qw(MonitoringSDK::Span Log::Any::Adapter::Wafermon);

use constant {
    BUFFER       => 1_000,             # messages, and …
    BUFFER_BYTES => 4 * 1024**2,       # … bytes that wait to be sent
    LOOK_EVERY   => 0.01,              # seconds between two looks for acks in a hot loop …
    LOOK_BYTES   => 256 * 1024,        # … unless this much is unacknowledged
    BODY         => MAX_LINE - 64,     # leaves room for client, seq and the brace
    MONOTONIC    => CLOCK_MONOTONIC,   # a constant of our own, which Perl folds
    DRAIN        => 500,               # messages taken from the buffer in one call
};

my $TRACE_ID = qr/\A[\x21-\x7e]{1,128}\z/;
my $SPAN_ID  = qr/\A[0-9a-f]{16}\z/;
my $SERVICE  = qr/\A[A-Za-z0-9._:-]{1,128}\z/;
my %LEVEL    = map { $_ => 1 } qw(debug info warning error critical);
my @STATS    = qw(called sent acked rejected dropped spilled handed_over resent reconnects);

my $PAGE     = POSIX::sysconf(POSIX::_SC_PAGESIZE());

my %alive;    # every open object, weakly: END has to find those that globals or closures still hold

sub new {
    my ($class, %option) = @_;
    my %known = map { $_ => 1 } qw(service url trace_id buffer spill_dir token coalesce);
    if (my @unknown = grep { !$known{$_} } sort keys %option) {
        Carp::croak("unknown option: @unknown");
    }
    my $given = sub {
        my ($name, @variables) = @_;
        my ($first) = grep { defined && length } $option{$name}, map { $ENV{$_} } @variables;
        return $first;
    };
    my $service = $given->('service', 'WAFERMON_SERVICE', 'OTEL_SERVICE_NAME');
    Carp::croak('no service') if !defined $service;
    Carp::croak("bad service: $service") if $service !~ $SERVICE || $service eq 'wafermon';
    my $trace_id = $given->('trace_id');
    Carp::croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    for my $name (grep { defined $option{$_} } qw(buffer coalesce)) {
        Carp::croak("bad $name: $option{$name}") if $option{$name} !~ /\A[1-9][0-9]{0,8}\z/;
    }
    my $buffer = $given->('buffer', 'WAFERMON_BUFFER');

    my $self = bless {
        pid       => $$,
        service   => $service,
        host      => Sys::Hostname::hostname(),
        token     => $given->('token', 'WAFERMON_TOKEN'),
        spill_dir => $given->('spill_dir', 'WAFERMON_SPILL_DIR') // MonitoringSDK::Spill::default_dir(),
        limit     => defined $buffer && $buffer =~ /\A[1-9][0-9]{0,8}\z/ ? $buffer : BUFFER,
        coalesce  => $option{coalesce} // 1,
        off       => ($ENV{WAFERMON_DISABLED} // '') !~ /\A(?:0|false|no|)\z/i,    # disabled or closed
    }, $class;
    $self->_inherit_trace($trace_id);
    $self->{target} = MonitoringSDK::Target->new($given->('url', 'WAFERMON_URL') // MonitoringSDK::Target::DEFAULT)
        if !$self->{off};
    $self->_begin;
    weaken($alive{ refaddr $self } = $self);
    if (!$self->{off}) {
        $self->_pump(_clock()) for 1, 2;    # on the own machine enough for the hello to be under way
    }
    return $self;
}

# A stream and a spill of this process's own, everything at zero.
sub _begin {
    my ($self) = @_;
    my ($target, $count) = ($self->{target}, { map { $_ => 0 } @STATS });
    my %hello = (v => 2, type => 'hello', service => $self->{service}, host => $self->{host}, pid => $$,
        sdk => "perl/$VERSION", ack => \1, (defined $self->{token} ? (token => $self->{token}) : ()));
    my $stream_of = sub {
        my ($client) = @_;
        my $hello = object({ %hello, client => $client });
        return MonitoringSDK::Stream->new(target => $target, client => $client, hello => "$hello\n", count => $count);
    };
    $self->{client} = hex_id(16);
    $self->{stream} = $stream_of->($self->{client});
    $self->{spill}  = MonitoringSDK::Spill->new(
        dir => $self->{spill_dir}, service => $self->{service}, stream => $stream_of, count => $count);
    @$self{qw(count buffer buffer_bytes unreported look_at)} = ($count, [], 0, 0, 0);
    $self->{measured} = [ _clock(), Time::HiRes::clock() ];
    return $self->_describe;
}

# The first call in a forked child: it starts empty, and what it inherited is the parent's business.
sub _be_child {
    my ($self) = @_;
    $self->{pid} = $$;
    $self->{stream}->abandon;
    $self->{spill}->abandon;
    return $self->_begin;
}

sub _clock { return clock_gettime(MONOTONIC) }

# --- trace and spans -------------------------------------------------------------------------------------------------

# `path` holds what surrounds a call, outermost first: what the environment says, then each open span. The environment's
# trace and span are a pair: a span of another trace is nobody's parent here.
sub _inherit_trace {
    my ($self, $given) = @_;
    my %from = (trace => $ENV{WAFERMON_TRACE_ID} // '', span => $ENV{WAFERMON_SPAN_ID} // '');
    if (($ENV{TRACEPARENT} // '') =~ /\A[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-/) {
        $from{trace} = $1 if $from{trace} eq '';
        $from{span}  = $2 if $from{span} eq '' && $from{trace} eq $1;
    }
    my $trace = $given // ($from{trace} =~ $TRACE_ID ? $from{trace} : undef);
    my $ours  = $from{span} =~ $SPAN_ID && (!defined $trace || $trace eq $from{trace});
    $self->{path} = [ { id => $ours ? $from{span} : undef, trace_here => $trace } ];
    return;
}

# What every message says of its origin, encoded once; and the same for child processes, in the environment.
sub _describe {
    my ($self) = @_;
    my ($span, $trace) = @{ $self->{path}[-1] }{qw(id trace_here)};
    $self->{origin} = qq(,"service":"$self->{service}","host":) . string($self->{host}) . qq(,"pid":$$);
    $self->{place}  = $self->{origin}
        . (defined $trace ? ',"trace_id":' . string($trace) : '') . (defined $span ? qq(,"span_id":"$span") : '');
    for ([ WAFERMON_TRACE_ID => $trace ], [ WAFERMON_SPAN_ID => $span ]) {
        my ($name, $id) = @$_;
        defined $id ? $ENV{$name} = $id : delete $ENV{$name};
    }
    return;
}

sub set_trace_id {
    my ($self, $trace_id) = @_;
    Carp::croak('bad trace id: ' . _shown($trace_id)) if ($trace_id // '') !~ $TRACE_ID;
    $self->_be_child if $self->{pid} != $$;
    my $path = $self->{path};
    $path->[0]{id} = undef if @$path == 1 && $trace_id ne ($path->[0]{trace_here} // '');
    $_->{trace_here} = $trace_id for @$path;
    return $self->_describe;
}

sub start_span {
    my ($self, $name, $trace_id, $tags) = @_;
    _check_name($name);
    Carp::croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    $tags = { %{ _hash(tags => $tags) } } if defined $tags;
    $self->_be_child if $self->{pid} != $$;
    my ($id, $around, $now) = (hex_id(16), $self->{path}[-1], int(time * 1e6));
    my $trace = $trace_id // $around->{trace_here} // hex_id(32);
    my $span = {
        id => $id, pid => $$, trace_here => $trace, tags => $tags, start => $now, started => _clock(),
        fields => $self->{origin} . ',"trace_id":' . string($trace) . qq(,"span_id":"$id","name":) . string($name)
            . (defined $around->{id} ? qq(,"parent_id":"$around->{id}") : ''),
    };
    $self->_submit(qq({"type":"span_start","ts":$now$span->{fields}), _tags($tags));
    push @{ $self->{path} }, $span;
    $self->_describe;
    return $id;
}

# Out of order it ends that span only; those inside stay open.
sub end_span {
    my ($self, $id, $status, $tags) = @_;
    $status //= 'ok';
    Carp::croak("unknown status: $status") if $status !~ /\A(?:ok|error)\z/;
    _hash(tags => $tags) if defined $tags;
    $self->_be_child if $self->{pid} != $$;
    my $path = $self->{path};
    my ($at) = grep { $path->[$_]{id} eq ($id // '') } 1 .. $#$path;
    Carp::croak('unknown span: ' . _shown($id)) if !$at;
    my $span = splice @$path, $at, 1;
    $self->_describe;
    return if $span->{pid} != $$;    # the process that started it ends it
    my $duration = int((_clock() - $span->{started}) * 1e6);
    $tags = { %{ $span->{tags} // {} }, %{ $tags // {} } } if $span->{tags} || $tags;
    return $self->_submit(
        '{"type":"span_end","ts":' . int(time * 1e6)
            . qq($span->{fields},"status":"$status","start":$span->{start},"duration":$duration),
        _tags($tags));
}

sub span {
    my ($self, @arguments) = @_;
    return MonitoringSDK::Span->_new($self, $self->start_span(@arguments));
}

# --- the calls -------------------------------------------------------------------------------------------------------

sub log_event {
    my ($self, $level, $message, $context) = @_;
    $LEVEL{ $level // '' } or Carp::croak('unknown level: ' . _shown($level));
    defined $message or Carp::croak('no message');
    _hash(context => $context) if defined $context && ref $context ne 'HASH';
    $self->_be_child if $self->{pid} != $$;
    return $self->_submit(
        '{"type":"event","ts":' . int(time * 1e6) . qq($self->{place},"level":"$level","message":) . string($message),
        defined $context ? ',"context":' . object($context) : '');
}

sub log_metric {
    my ($self, $name, $value, $unit, $tags, $kind) = @_;
    _check_name($name);
    $value = _number(value => $value);
    Carp::croak("unknown kind: $kind") if defined $kind && $kind !~ /\A(?:gauge|counter)\z/;
    $self->_be_child if $self->{pid} != $$;
    return $self->_submit(
        '{"type":"metric","ts":' . int(time * 1e6) . qq($self->{place},"name":) . string($name)
            . ',"value":' . ($value - $value == 0 ? float($value) : $value != $value ? '"NaN"' : $value > 0 ? '"Infinity"' : '"-Infinity"')
            . (defined $unit ? ',"unit":' . string($unit) : '')
            . (defined $kind && $kind eq 'counter' ? ',"kind":"counter"' : ''),
        _tags($tags));
}

sub log_progress {
    my ($self, $job_id, $percent, $status) = @_;
    $status //= 'running';
    Carp::croak('bad job id: ' . _shown($job_id)) if ($job_id // '') !~ $TRACE_ID;
    $percent = _number(percent => $percent);
    Carp::croak("percent out of 0-100: $percent") if !($percent >= 0 && $percent <= 100);
    Carp::croak("bad status: $status") if $status eq '' || length $status > 64;
    $self->_be_child if $self->{pid} != $$;
    return $self->_submit(
        '{"type":"progress","ts":' . int(time * 1e6) . qq($self->{place},"job_id":) . string($job_id)
            . ',"percent":' . float($percent) . ',"status":' . string($status), '');
}

sub log_resource {
    my ($self, @given) = @_;
    $self->_be_child if $self->{pid} != $$;
    my %resource;
    @resource{qw(cpu mem disk net)} = (grep { defined } @given) ? @given : $self->_measure;
    my $fields = '';
    for my $name (grep { defined $resource{$_} } qw(cpu mem disk net)) {
        my $value = _number($name => $resource{$name});
        $fields .= qq(,"$name":) . float($value) if $value - $value == 0;
    }
    return $self->_submit('{"type":"resource","ts":' . int(time * 1e6) . $self->{place} . $fields, '');
}

# cpu, mem and disk of the own process; Linux counts no network bytes by process.
sub _measure {
    my ($self) = @_;
    my ($then, $used) = @{ $self->{measured} };
    my ($now, $using) = @{ $self->{measured} = [ _clock(), Time::HiRes::clock() ] };
    my $cpu = $now > $then ? sprintf '%.1f', 100 * ($using - $used) / ($now - $then) : undef;
    my ($pages) = _slurp('/proc/self/statm') =~ /\A\d+ (\d+)/;
    my %io = _slurp('/proc/self/io') =~ /^(read_bytes|write_bytes): (\d+)/mg;
    return ($cpu, $pages && $pages * $PAGE, %io ? $io{read_bytes} + $io{write_bytes} : undef);
}

sub _slurp {
    my ($path) = @_;
    local $!;
    open my $file, '<', $path or return '';
    return join '', readline $file;
}

# --- checks: a programming error is reported at the caller's line -----------------------------------------------------

sub _shown { return defined $_[0] ? "$_[0]" : 'undef' }

sub _check_name {
    my ($name) = @_;
    Carp::croak('empty name') if !defined $name || $name eq '';
    return;
}

sub _hash {
    my ($what, $value) = @_;
    Carp::croak("$what is not a hash reference") if ref $value ne 'HASH';
    return $value;
}

# Text that reads as a number is one: much of what Perl measures was text a moment ago.
sub _number {
    my ($what, $value) = @_;
    Carp::croak("$what is not a number: " . _shown($value)) if !looks_like_number($value);
    return $value + 0;
}

sub _tags {
    my ($tags) = @_;
    return defined $tags ? ',"tags":' . tags(_hash(tags => $tags)) : '';
}

# --- on its way ------------------------------------------------------------------------------------------------------

# Takes a message, JSON without its closing brace, in two parts: the second, context or tags, may go if it is too long.
sub _submit {
    my ($self, $head, $extra) = @_;
    my $body = $head . $extra;
    utf8::downgrade($body);
    $body = shorten($head, $extra, BODY) if length $body > BODY;
    $self->{count}{called}++;
    if ($self->{off}) {
        $self->{count}{dropped}++;
        return;
    }
    my ($stream, $buffer, $now) = (@$self{qw(stream buffer)}, clock_gettime(MONOTONIC));
    if ($self->{busy}) {    # a signal handler's call within a call
        push @$buffer, $body;
        $self->{buffer_bytes} += length $body;
        return;
    }
    local $self->{busy} = 1;
    $self->_pump($now) if $now >= $self->{look_at} || @$buffer || $stream->{bytes} > LOOK_BYTES;

    if (!@$buffer && $stream->offer($body, $now, $self->{coalesce})) {
        return;
    }
    elsif (!$self->_is_full) {
        push @$buffer, $body;
        $self->{buffer_bytes} += length $body;
    }
    elsif (!$self->{spill}->add($body)) {
        $self->{count}{dropped}++;
        $self->{unreported}++;
    }
    return;
}

sub _is_full { return @{ $_[0]{buffer} } >= $_[0]{limit} || $_[0]{buffer_bytes} >= BUFFER_BYTES }

# All network work that can be done without waiting.
sub _pump {
    my ($self, $now) = @_;
    my ($stream, $buffer, $spill) = @$self{qw(stream buffer spill)};
    $self->{look_at} = $now + LOOK_EVERY;
    local $!;    # a call may stand between a failure and the caller's look at it
    $stream->pump($now);
    return if !$stream->is_open;
    for (1 .. DRAIN) {
        last if !@$buffer || !$stream->has_room;
        my $body = shift @$buffer;
        $self->{buffer_bytes} -= length $body;
        $stream->offer($body, $now, @$buffer ? 100 : 1);
    }
    return if @$buffer;
    $spill->roll;
    $spill->pump($now);
    if (my $dropped = $self->{unreported}) {
        $self->{unreported} = 0;
        local $self->{busy};
        $self->log_event(warning => "$dropped messages dropped", { kind => 'dropped', count => $dropped });
    }
    return;
}

sub _waiting { return @{ $_[0]{buffer} } + $_[0]{stream}->waiting + $_[0]{spill}->waiting }

# Sleeps until a socket is ready, a reconnect is due or the deadline comes.
sub _wait {
    my ($self, $deadline) = @_;
    my ($readable, $writable) = ('', '');
    for my $part (@$self{qw(stream spill)}) {
        $part->watch($readable, $writable);
        my $retry_at = $part->retry_at;
        $deadline = $retry_at if defined $retry_at && $retry_at < $deadline;
    }
    my $seconds = $deadline - _clock();
    select $readable, $writable, undef, $seconds if $seconds > 0;
    return;
}

# --- stats, flush, close ---------------------------------------------------------------------------------------------

sub get_stats {
    my ($self) = @_;
    $self->_be_child if $self->{pid} != $$;
    if (!$self->{off} && !$self->{busy}) {
        local $self->{busy} = 1;
        $self->_pump(_clock());
    }
    my $state = $self->_is_full ? 'overflow' : $self->{stream}->is_open ? 'connected' : 'disconnected';
    return { %{ $self->{count} }, waiting => $self->_waiting, state => $state };
}

sub flush {
    my ($self, $timeout) = @_;
    $self->_be_child if $self->{pid} != $$;
    return $self->_flush_until(_clock() + ($timeout // 5));
}

# With $impatient, also gives up when there is no connection and none is being made.
sub _flush_until {
    my ($self, $deadline, $impatient) = @_;
    return 1 if $self->{off};
    return 0 if $self->{busy};
    local ($!, $self->{busy}) = (0, 1);
    while (1) {
        my $now = _clock();
        $self->{target}->resolve if $now < $deadline && !$impatient;
        $self->_pump($now);
        return 1 if !$self->_waiting;
        return 0 if $now >= $deadline || $impatient && $self->{stream}->is_idle;
        $self->_wait($deadline);
    }
}

sub close {
    my ($self, $timeout) = @_;
    $self->_be_child if $self->{pid} != $$;
    return if $self->{off} || $self->{busy};    # END does it when a signal handler's exit has unwound the call
    local $!;
    my ($stream, $buffer, $spill, $count) = @$self{qw(stream buffer spill count)};
    my $deadline = _clock() + ($timeout // 2);
    $self->_flush_until($deadline, 1);
    $stream->add($_) for splice @$buffer;
    my @left = $stream->lines;
    $count->{dropped} += @left - $spill->leave($self->{client}, @left) if @left;
    $spill->hand_over;
    $stream->forget;
    $stream->finish(\&_clock, $deadline);
    $self->{off} = 1;
    return;
}

# An object that goes out of scope, and at the end of the program all of them. A forked child that never called leaves
# its parent's messages to the parent.
sub DESTROY {
    my ($self) = @_;
    local ($@, $!, $?, $^E);
    delete $alive{ refaddr $self };
    eval { $self->{pid} == $$ ? $self->close : $self->_let_go } if $self->{stream};
    return;
}

sub _let_go {
    my ($self) = @_;
    $_->abandon for @$self{qw(stream spill)};
    return;
}

END {
    local ($@, $!, $?, $^E);
    $_->DESTROY for grep { defined } values %alive;
}

package MonitoringSDK::Span;

# Ends its span when it goes out of scope, also while an exception passes.

sub _new {
    my ($class, $sdk, $id) = @_;
    return bless { sdk => $sdk, id => $id, before => _trouble() }, $class;
}

sub id { return $_[0]{id} }

sub end {
    my ($self, $status, $tags) = @_;
    my $sdk = delete $self->{sdk} or return;
    return $sdk->end_span($self->{id}, $status, $tags);
}

# What a destructor can know: Perl sets $@ before it unwinds to an eval, and $? (below 256, which the status of an ended
# child is not, unless a signal killed it) before it unwinds to leave the program.
sub _trouble {
    return ref $@ ? 'object ' . Scalar::Util::refaddr($@) : $@ ne '' ? $@ : $? > 0 && $? < 256 ? "exit $?" : '';
}

sub DESTROY {
    my ($self) = @_;
    return if !$self->{sdk};
    my $trouble = _trouble();
    my $status  = $trouble ne '' && $trouble ne $self->{before} ? 'error' : 'ok';
    local ($@, $!, $?, $^E);
    eval { $self->end($status) };
    return;
}

1;

__END__

=encoding UTF-8

=head1 NAME

MonitoringSDK - events, metrics, progress, resources and spans for a wafermon sidecar

=head1 SYNOPSIS

    use MonitoringSDK;

    my $sdk = MonitoringSDK->new(service => 'file-receiver');
    $sdk->set_trace_id('job-4711');
    {
        my $span = $sdk->span('read', undef, { file => 'lot.dat' });    # ends with the block
        $sdk->log_event(info => 'read', { file => 'lot.dat', rows => 1250 });
        $sdk->log_metric(bytes_read => 52_428, 'By');
    }
    $sdk->log_progress('job-4711', 100, 'done');

=head1 DESCRIPTION

One object holds one connection to the sidecar. Each call makes one line of JSON and gives it to the kernel with one
non-blocking C<send> before it returns. What the kernel does not take waits in memory (1,000 messages or 4 MiB), then in
spill files (64 MiB), and goes out, in order, in a later call. A message is kept until the sidecar has acknowledged it,
and counts once however often it was sent.

No call waits for the network, and none dies because of it. A programming error (an unknown level, a percent of 300)
croaks at the caller's line, and sends and counts nothing. Core modules only, Perl 5.14 or newer, POSIX systems.

=head1 CALLS

Arguments in brackets are optional, and C<undef> is the same as leaving one out.

=head2 new(service => $name, ...)

Opens the SDK. It does not wait for the sidecar, which need not be there. Options win over the environment:

=over

=item service

1 to 128 of C<A-Z a-z 0-9 . _ - :>. C<WAFERMON_SERVICE>, else C<OTEL_SERVICE_NAME>; without any, C<new> croaks.

=item url

C<tcp://host:port>, C<unix:///path> or C<tls://host:port>. C<WAFERMON_URL>, else C<tcp://127.0.0.1:7411>. One that can't
be used is said once on stderr, and the default serves. C<tls> needs L<IO::Socket::SSL>, which is not a core module; it
checks the certificate and the host name against the system's authorities (or C<SSL_CERT_FILE>).

=item trace_id

1 to 128 printable ASCII characters without space: a job id or a W3C trace id. C<WAFERMON_TRACE_ID>, else that of
C<TRACEPARENT>. C<WAFERMON_SPAN_ID>, else the same C<TRACEPARENT>, names the parent of the outermost spans.

=item buffer

How many messages wait in memory before they go to spill files. C<WAFERMON_BUFFER>, else 1,000.

=item spill_dir

C<WAFERMON_SPILL_DIR>, else F</var/spool/wafermon> where that is writable, else F</tmp/wafermon-UID>.

=item token

For a listener that asks for one. C<WAFERMON_TOKEN>.

=item coalesce

How many messages one C<send> takes together, 1 by default. A hot loop gets by with a fraction of the time at 50 or 100;
up to that many messages then stay in the process, until a later call (at most every 10 ms), C<flush> or the end sends them.

=back

C<WAFERMON_DISABLED> set to anything but C<0>, C<false> or C<no> opens nothing: calls are checked and counted as dropped.

=head2 log_event($level, $message, [\%context])

C<$level> is C<debug>, C<info>, C<warning>, C<error> or C<critical>.

=head2 log_metric($name, $value, [$unit, \%tags, $kind])

C<$value> is anything that looks like a number, infinities and NaN too. C<$unit> is a UCUM unit where there is one.
C<$kind> is C<gauge> (the default) or C<counter>.

=head2 log_progress($job_id, $percent, [$status])

C<$percent> is 0 to 100. C<$status>, 1 to 64 characters, is C<running> by default; C<done>, C<failed> and C<cancelled>
end the job.

=head2 log_resource([$cpu, $mem, $disk, $net])

CPU in percent of one core, resident bytes, bytes read and written, bytes sent and received; C<undef> and NaN leave one
out. Without any it measures its own process: C<$cpu> since the previous such call, C<$mem> and C<$disk> from F</proc>,
no C<$net>, which Linux does not count by process.

=head2 span($name, [$trace_id, \%tags])

Starts a span and returns a guard that ends it when it goes out of scope: with C<error> while an exception unwinds or the
program exits with a status other than 0, else with C<ok>. Keep it in a variable.

=head2 $guard->end([$status, \%tags])

Ends the span now; the guard does nothing more.

=head2 $guard->id

The span's id, 16 hexadecimal digits.

=head2 start_span($name, [$trace_id, \%tags])

Starts a span and returns its id. Calls made until it ends carry that id, and spans started inside have it as their
parent. Without C<$trace_id> the span takes the current trace; where there is none it makes one.

=head2 end_span($span_id, [$status, \%tags])

C<$status> is C<ok> (the default) or C<error>. The tags are added to those of the start. Out of order it ends that span
only; an id that is not open croaks.

=head2 set_trace_id($trace_id)

The trace of all later calls, inside open spans too.

=head2 get_stats()

A hash reference:

    state        'connected', 'disconnected' or 'overflow' (the buffer is full)
    called       calls that made a message
    sent         messages given to the socket, once each
    acked        acknowledged by the sidecar
    rejected     refused by it for what they say
    dropped      lost for want of room, or called after close or while disabled
    spilled      written to spill files
    waiting      unsent, unacknowledged, or in spill files that are ours
    handed_over  in spill files that close left, or that the sidecar took up
    resent       given to the socket again
    reconnects   welcomes after the first

Always: called = acked + rejected + dropped + waiting + handed_over.

=head2 flush([$seconds])

Waits, 5 seconds at most by default, until nothing is waiting; true if so. C<flush(0)> does not wait.

=head2 close([$seconds])

Delivers what it can in 2 seconds by default, at once where there is no connection, and leaves the rest in a spill file,
which the sidecar takes up. It runs by itself when the object goes out of scope and at the end of the program. Later
calls count as dropped.

=head1 VALUES

A value is a number if it has a numeric flag and no string flag, so C<1250> is one and C<"007"> read from a file is not;
add 0 to make it one. Before Perl 5.36 a number that was once used as a string counts as a string. C<undef> is C<null>,
as are infinities and NaN inside context and tags. Integers beyond 2^53 are sent there as strings. C<\1>, C<\0> and the
booleans of JSON::PP and its relatives are true and false. Hash and array references nest to 8 levels; what is deeper, or
contains itself, is sent as text, and so is any other reference. Tags hold strings and numbers only.

A string is taken as characters or as UTF-8 bytes, whichever it is; what is not valid becomes U+FFFD. A message that would
be longer than 64 KiB is shortened, longest string first, and says C<"truncated":true>.

=head1 WHAT CAN BE LOST

What is in the memory of a process that ends without its END blocks: by SIGKILL, a crash, C<POSIX::_exit>, C<exec>, or a
SIGTERM that nobody handles. While the sidecar keeps up that is nothing, because each call hands its line to the kernel.
The SDK installs no signal handlers; two lines make SIGTERM a normal end:

    $SIG{TERM} = sub { exit 143 };
    $SIG{HUP}  = sub { exit 129 };

=head1 FORK, EXEC, THREADS

After C<fork> the child starts empty at its first call, with a connection and stats of its own; a child that never calls
does nothing at all. A span of the parent that ends in the child sends nothing there. The current trace and span are in
C<%ENV> (C<WAFERMON_TRACE_ID>, C<WAFERMON_SPAN_ID>), so that programs started by C<system>, C<exec> or pipes fall into
the same trace, under the right span. An object must not be shared between ithreads.

There is no thread and no timer: acknowledgements are read, and a lost connection is made again, inside calls,
C<get_stats> too. A program that computes for an hour sends nothing new in that hour.

Looking up a host name may take time; it is done in C<new>, and in C<flush> if it failed there. Addresses need none.

=head1 SEE ALSO

L<Log::Any::Adapter::Wafermon>, where the program logs through L<Log::Any>.

=cut
