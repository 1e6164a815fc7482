package MonitoringSDK;

# The calls: each checks its arguments, encodes one message and gives it to the stream, or to the spill when too
# many wait there. MonitoringSDK::Stream speaks with the sidecar, MonitoringSDK::Spill keeps the files,
# MonitoringSDK::Encoder makes the JSON. Promises: no call blocks or dies because of the network; a message's content
# is fixed when the call returns; always: called = acked + rejected + dropped + waiting + handed_over.

use 5.014;
use warnings;
use Carp qw(croak);
use List::Util qw(max min);
use MonitoringSDK::Encoder qw(MAX_LINE float object shorten string tags);
use MonitoringSDK::Spill ();
use MonitoringSDK::Stream qw(hex_id resolve target);
use Scalar::Util qw(looks_like_number refaddr weaken);
use Sys::Hostname qw(hostname);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime time);

our $VERSION = '2.0.0';
our @CARP_NOT = qw(MonitoringSDK::Span Log::Any::Adapter::Wafermon);

# Messages, and bytes, that wait to be sent.
use constant { BUFFER => 1_000, BUFFER_BYTES => 4 * 1024**2 };
# Seconds between two looks for acks in a hot loop, unless this many bytes are unacknowledged.
use constant { LOOK_EVERY => 0.01, LOOK_BYTES => 256 * 1024 };
# A line without client, seq and the brace; the clock, as a constant that Perl folds.
use constant { BODY => MAX_LINE - 64, MONOTONIC => CLOCK_MONOTONIC };

my @STATS    = qw(called sent acked rejected dropped spilled handed_over resent reconnects);
my %LEVEL    = map { $_ => 1 } qw(debug info warning error critical);
my $TRACE_ID = qr/\A[\x21-\x7e]{1,128}\z/;
my $COUNT    = qr/\A[1-9][0-9]{0,8}\z/;

my %alive;    # every open object, weakly: END has to find those that globals or closures still hold

sub new { my ($class, %option) = @_;
    my @unknown = grep { !/\A(?:service|url|trace_id|buffer|spill_dir|token|coalesce)\z/ } sort keys %option;
    croak("unknown option: @unknown") if @unknown;
    my $service = _first($option{service}, @ENV{qw(WAFERMON_SERVICE OTEL_SERVICE_NAME)}) // croak('no service');
    croak("bad service: $service") if $service !~ /\A(?!wafermon\z)[A-Za-z0-9._:-]{1,128}\z/;
    my $trace_id = _first($option{trace_id});
    croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    ($option{$_} // 1) =~ $COUNT or croak("bad $_: $option{$_}") for qw(buffer coalesce);

    my $self = bless {
        service => $service, host => hostname(), path => [ _surroundings($trace_id) ],
        token     => _first($option{token}, $ENV{WAFERMON_TOKEN}),
        spill_dir => _first($option{spill_dir}, $ENV{WAFERMON_SPILL_DIR}) // MonitoringSDK::Spill::default_dir(),
        limit     => $option{buffer} // (($ENV{WAFERMON_BUFFER} // '') =~ $COUNT ? $ENV{WAFERMON_BUFFER} : BUFFER),
        coalesce  => $option{coalesce} // 1,
        off       => ($ENV{WAFERMON_DISABLED} // '') !~ /\A(?:0|false|no|)\z/i,    # disabled or closed
    }, $class;
    $self->{coalesce} = min($self->{coalesce}, $self->{limit});
    $self->{target} = target(_first($option{url}, $ENV{WAFERMON_URL})) if !$self->{off};
    $self->_begin;
    weaken($alive{ refaddr $self } = $self);
    $self->get_stats for 1, 2;    # on the own machine enough for the hello to be under way
    return $self;
}

# What is given, or else the first variable that is set; an empty one is not.
sub _first { my ($first) = grep { defined && length } @_; return $first }

# A stream and a spill of this process's own, everything at zero: in new, and in a forked child's first call. What the
# child inherited goes away with its objects, which close descriptors without a word: it is the parent's business.
sub _begin { my ($self) = @_;
    my ($service, $host, $token) = @$self{qw(service host token)};
    chop(my $hello = object({ v => 2, type => 'hello', service => $service, host => $host, pid => $$, ack => \1,
        sdk => "perl/$VERSION", defined $token ? (token => $token) : () }));
    my %given  = (target => $self->{target}, hello => $hello, count => { map { $_ => 0 } @STATS });
    my $stream = sub { MonitoringSDK::Stream->new(%given) };
    @$self{qw(pid count stream)} = ($$, $given{count}, $stream->());
    $self->{spill} = MonitoringSDK::Spill->new(
        dir => $self->{spill_dir}, service => $service, stream => $stream, count => $given{count});
    @$self{qw(unreported look_at measured)} = (0, 0, [ _clock(), Time::HiRes::clock() ]);
    $self->_describe;
}

sub _clock { return clock_gettime(MONOTONIC) }

# --- trace and spans -------------------------------------------------------------------------------------------------

# `path` holds what surrounds a call, outermost first: what the environment says, then each open span. The environment's
# trace and span are a pair: a span of another trace is nobody's parent here.
sub _surroundings { my ($given) = @_;
    my ($trace, $span) = map { $_ // '' } @ENV{qw(WAFERMON_TRACE_ID WAFERMON_SPAN_ID)};
    ($trace, $span) = ($1, $2)
        if "$trace$span" eq '' && ($ENV{TRACEPARENT} // '') =~ /\A[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-/;
    my $here = $given // ($trace =~ $TRACE_ID ? $trace : undef);
    my $ours = $span =~ /\A[0-9a-f]{16}\z/ && ($here // $trace) eq $trace;
    return { id => $ours ? $span : undef, trace_here => $here };
}

# What every message says of its origin, encoded once; and the same for child processes, in the environment.
sub _describe { my ($self) = @_;
    my ($span, $trace) = @{ $self->{path}[-1] }{qw(id trace_here)};
    $self->{place} = join '', qq(,"service":"$self->{service}","host":), string($self->{host}), qq(,"pid":$$),
        defined $trace ? (',"trace_id":', string($trace)) : (), defined $span ? qq(,"span_id":"$span") : ();
    my %id = (WAFERMON_TRACE_ID => $trace, WAFERMON_SPAN_ID => $span);
    defined $id{$_} ? $ENV{$_} = $id{$_} : delete $ENV{$_} for keys %id;
}

sub set_trace_id { my ($self, $trace_id) = @_;
    croak('bad trace id: ' . ($trace_id // 'undef')) if ($trace_id // '') !~ $TRACE_ID;
    my $path = $self->{path};
    $path->[0]{id} = undef if @$path == 1 && $trace_id ne ($path->[0]{trace_here} // '');
    $_->{trace_here} = $trace_id for @$path;
    $self->_describe;
    return;
}

sub start_span { my ($self, $name, $trace_id, $tags) = @_;
    croak('empty name') if ($name // '') eq '';
    croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    my ($around, $extra) = ($self->{path}[-1], _tags($tags));
    my $span = {
        id => hex_id(16), pid => $$, tags => { %{ $tags // {} } }, started => _clock(),
        trace_here => $trace_id // $around->{trace_here} // hex_id(32),
        fields => ',"name":' . string($name) . (defined $around->{id} ? qq(,"parent_id":"$around->{id}") : ''),
    };
    push @{ $self->{path} }, $span;
    $self->_describe;
    $self->_submit('span_start', $span->{fields}, $extra);
    @$span{qw(start place)} = @$self{qw(ts place)};
    return $span->{id};
}

# Out of order it ends that span only; those inside stay open. The process that started it ends it.
sub end_span { my ($self, $id, $status, $tags) = @_;
    $status //= 'ok';
    croak("unknown status: $status") if $status !~ /\A(?:ok|error)\z/;
    _tags($tags);
    my $path = $self->{path};
    my ($at) = grep { $path->[$_]{id} eq ($id // '') } 1 .. $#$path;
    my $span = splice @$path, $at // croak('unknown span: ' . ($id // 'undef')), 1;
    $self->_describe;
    return if $span->{pid} != $$;
    local $self->{place} = $span->{place};
    my %tags = (%{ $span->{tags} }, %{ $tags // {} });
    my $duration = int(1e6 * (_clock() - $span->{started}));
    return $self->_submit('span_end', qq($span->{fields},"status":"$status","start":$span->{start},"duration":$duration),
        _tags(%tags ? \%tags : undef));
}

sub span { my ($self, @arguments) = @_; return MonitoringSDK::Span->_new($self, $self->start_span(@arguments)) }

# --- the calls: a programming error is reported at the caller's line --------------------------------------------------

sub log_event { my ($self, $level, $message, $context) = @_;
    croak('unknown level: ' . ($level // 'undef')) if !$LEVEL{ $level // '' };
    croak('no message') if !defined $message;
    croak('context is not a hash reference') if defined $context && ref $context ne 'HASH';
    my $extra = defined $context ? ',"context":' . object($context) : '';
    return $self->_submit('event', qq(,"level":"$level","message":) . string($message), $extra);
}

sub log_metric { my ($self, $name, $value, $unit, $tags, $kind) = @_;
    croak('empty name') if ($name // '') eq '';
    croak("unknown kind: $kind") if defined $kind && $kind !~ /\A(?:gauge|counter)\z/;
    my $fields = ',"name":' . string($name) . ',"value":' . float(_number(value => $value));
    $fields .= ',"unit":' . string($unit) if defined $unit;
    $fields .= ',"kind":"counter"' if ($kind // '') eq 'counter';
    return $self->_submit('metric', $fields, _tags($tags));
}

sub log_progress { my ($self, $job_id, $percent, $status) = @_;
    $status //= 'running';
    croak('bad job id: ' . ($job_id // 'undef')) if ($job_id // '') !~ $TRACE_ID;
    $percent = _number(percent => $percent);
    croak("percent out of 0-100: $percent") if !($percent >= 0 && $percent <= 100);
    croak("bad status: $status") if $status eq '' || length $status > 64;
    return $self->_submit('progress',
        ',"job_id":' . string($job_id) . ',"percent":' . float($percent) . ',"status":' . string($status), '');
}

sub log_resource { my ($self, @given) = @_;
    my %value;
    @value{qw(cpu mem disk net)} = (grep { defined } @given) ? @given : $self->_measure;
    my @names = grep { defined $value{$_} && _number($_ => $value{$_}) * 0 == 0 } qw(cpu mem disk net);
    return $self->_submit('resource', join('', map { qq(,"$_":) . float($value{$_} + 0) } @names), '');
}

# cpu, mem and disk of the own process; Linux counts no network bytes by process.
sub _measure { my ($self) = @_;
    my ($then, $used) = @{ $self->{measured} };
    my ($now, $using) = @{ $self->{measured} = [ _clock(), Time::HiRes::clock() ] };
    my %own = map { _slurp("/proc/self/$_") =~ /^(VmRSS|read_bytes|write_bytes):\s+(\d+)/mg } qw(status io);
    return (sprintf('%.1f', 100 * ($using - $used) / max($now - $then, 1e-6)), $own{VmRSS} && $own{VmRSS} * 1024,
        defined $own{read_bytes} ? $own{read_bytes} + $own{write_bytes} : undef);
}

sub _slurp { my ($path) = @_;
    local $!;
    open my $file, '<', $path or return '';
    return join '', readline $file;
}

# Text that reads as a number is one: much of what Perl measures was text a moment ago.
sub _number { my ($what, $value) = @_;
    croak("$what is not a number: " . ($value // 'undef')) if !looks_like_number($value);
    return $value + 0;
}

sub _tags { my ($tags) = @_;
    croak('tags is not a hash reference') if defined $tags && ref $tags ne 'HASH';
    return defined $tags ? ',"tags":' . tags($tags) : '';
}

# --- on its way ------------------------------------------------------------------------------------------------------

# Makes a message of its own fields and `extra`, context or tags, which may go if it is too long, and lets it go as far
# as it can.
sub _submit { my ($self, $type, $fields, $extra) = @_;
    $self->_begin if $self->{pid} != $$;
    my $ts   = $self->{ts} = int(time * 1e6);
    my $body = qq({"type":"$type","ts":$ts$self->{place}$fields$extra);
    utf8::downgrade($body);
    $body = shorten(substr($body, 0, length($body) - length $extra), $extra, BODY) if length $body > BODY;

    my ($stream, $count) = @$self{qw(stream count)};
    $count->{called}++;
    if    ($self->{off})  { $count->{dropped}++ }
    elsif ($self->{busy}) { $stream->add($body) }    # a signal handler's call within a call
    else {
        local ($!, $self->{busy}) = (0, 1);
        my $now = clock_gettime(MONOTONIC);
        $self->_pump($now) if $now >= $self->{look_at} || $stream->{bytes} > LOOK_BYTES;
        if ($stream->{last} - $stream->{high} < $self->{limit} && $stream->{unsent} < BUFFER_BYTES) {
            $stream->add($body, $now, $self->{coalesce});
        }
        elsif (!$self->{spill}->add($body)) { $_++ for $count->{dropped}, $self->{unreported} }
    }
    return;
}

# All network work that can be done without waiting.
sub _pump { my ($self, $now) = @_;
    my ($stream, $spill) = @$self{qw(stream spill)};
    $stream->pump($now);
    $self->{look_at} = $stream->is_open ? $now + LOOK_EVERY : 0;
    return if $stream->{unsent} || !$stream->is_open;
    $spill->pump($now);
    if (my $dropped = $self->{unreported}) {
        $self->{unreported} = 0;
        local $self->{busy};
        $self->log_event(warning => "$dropped messages dropped", { kind => 'dropped', count => $dropped });
    }
}

# --- stats, flush, close ---------------------------------------------------------------------------------------------

sub _waiting { return $_[0]{stream}->waiting + $_[0]{spill}->waiting }

sub get_stats { my ($self) = @_;
    $self->flush(0);
    my $stream = $self->{stream};
    my $full   = $stream->{last} - $stream->{high} >= $self->{limit} || $stream->{unsent} >= BUFFER_BYTES;
    my $state  = $full ? 'overflow' : $stream->is_open ? 'connected' : 'disconnected';
    return { %{ $self->{count} }, waiting => $self->_waiting, state => $state };
}

sub flush { my ($self, $timeout) = @_; return $self->_flush(_clock() + ($timeout // 5)) }

# With $impatient, gives up when there is no connection and none is being made.
sub _flush { my ($self, $deadline, $impatient) = @_;
    $self->_begin if $self->{pid} != $$;
    return $self->{off} if $self->{off} || $self->{busy};
    local ($!, $self->{busy}) = (0, 1);
    while (1) {
        $self->_pump(my $now = _clock());
        return 1 if !$self->_waiting;
        return 0 if $now >= $deadline || $impatient && $self->{stream}->is_idle;
        resolve($self->{target}) if !$impatient;
        # Until something is there to read, or for 10 ms: then a reconnect may be due, or the socket take more.
        my $readable = '';
        vec($readable, $_, 1) = 1 for map { $_->descriptor } @$self{qw(stream spill)};
        select $readable, undef, undef, min($deadline - $now, 0.01);
    }
}

sub close { my ($self, $timeout) = @_;
    my $deadline = _clock() + ($timeout // 2);
    $self->_flush($deadline, 1);
    return if $self->{off} || $self->{busy};    # END does it when a signal handler's exit has unwound the call
    local $!;
    my ($stream, $spill) = @$self{qw(stream spill)};
    $self->{count}{dropped} += $spill->leave($stream);
    $spill->hand_over;
    $stream->finish(\&_clock, $deadline);
    $self->{off} = 1;
    return;
}

# An object that goes out of scope, and at the end of the program all of them. A forked child that never called leaves
# its parent's messages to the parent.
sub DESTROY { my ($self) = @_;
    local ($@, $!, $?, $^E);
    delete $alive{ refaddr $self };
    eval { $self->close } if ($self->{pid} // 0) == $$;
}

END { $_->DESTROY for grep { defined } values %alive }

package MonitoringSDK::Span;

# Ends its span when it goes out of scope, also while an exception passes.

sub _new { my ($class, $sdk, $id) = @_; return bless { sdk => $sdk, id => $id, before => _trouble() }, $class }

sub id { return $_[0]{id} }

sub end { my ($self, $status, $tags) = @_;
    my $sdk = delete $self->{sdk} or return;
    return $sdk->end_span($self->{id}, $status, $tags);
}

# What a destructor can know: Perl sets $@ before it unwinds to an eval, and $? (below 256, which the status of an ended
# child is not, unless a signal killed it) before it unwinds to leave the program.
sub _trouble {
    return ref $@ ? 'object ' . Scalar::Util::refaddr($@) : $@ ne '' ? $@ : $? > 0 && $? < 256 ? "exit $?" : '';
}

sub DESTROY { my ($self) = @_;
    my $trouble = _trouble();
    local ($@, $!, $?, $^E);
    eval { $self->end($trouble ne '' && $trouble ne $self->{before} ? 'error' : 'ok') };
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
be used is said once on stderr, and the default serves. C<tls> needs F<MonitoringSDK/TLS.pm> and L<IO::Socket::SSL>,
which is not a core module; it checks the certificate and the host name against the system's authorities (or
C<SSL_CERT_FILE>, or the file that C<WAFERMON_TLS_CA> names), and shows the certificate of C<WAFERMON_TLS_CERT> and
C<WAFERMON_TLS_KEY>.

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

How many messages one C<send> takes together, 1 by default. A hot loop gets by with a fraction of the time at 50 or
100; up to that many messages then stay in the process, until a later call (at most every 10 ms), C<flush> or the end
sends them.

=back

C<WAFERMON_DISABLED> set to anything but C<0>, C<false> or C<no> opens nothing: calls are checked and counted as
dropped.

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

Starts a span and returns a guard that ends it when it goes out of scope: with C<error> while an exception unwinds or
the program exits with a status other than 0, else with C<ok>. Keep it in a variable.

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

A value is a number if it has a numeric flag and no string flag, so C<1250> is one and C<"007"> read from a file is
not; add 0 to make it one. Before Perl 5.36 a number that was once used as a string counts as a string. C<undef> is
C<null>, as are infinities and NaN inside context and tags. Integers beyond 2^53 are sent there as strings. C<\1>,
C<\0> and the booleans of JSON::PP and its relatives are true and false. Hash and array references nest to 8 levels;
what is deeper, or contains itself, is sent as text, and so is any other reference. Tags hold strings and numbers
only.

A string is taken as characters or as UTF-8 bytes, whichever it is; what is not valid becomes U+FFFD. A message that
would be longer than 64 KiB is shortened, longest string first, and says C<"truncated":true>.

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
