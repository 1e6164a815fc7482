package MonitoringSDK;

# A thin client of the wafermon sidecar, all of it in this file. From the bottom up: MonitoringSDK::Encoder makes the
# JSON, MonitoringSDK::Stream speaks with the sidecar, MonitoringSDK::Spill keeps the files, MonitoringSDK has the
# calls, and MonitoringSDK::Span is a guard. Only a tls:// URL needs more, MonitoringSDK/TLS.pm.

use 5.014;
use warnings;

our $VERSION = '2.0.0';

# === the encoder ======================================================================================================

package MonitoringSDK::Encoder;

# Perl values to compact JSON bytes, in one pass. Promises: the result is valid UTF-8 without NUL and without line ends;
# no value makes it die; the caller's data is left as it was (stringifying a number in place would turn it into a string
# before Perl 5.36, hence the copies).

no if $] >= 5.036, warnings => 'experimental::builtin';
use B ();
use Encode ();
use List::Util qw(max);
use Scalar::Util qw(refaddr);

# KEPT: strings this short are never cut: ids, names, the service.
use constant { MAX_LINE => 65_536, MAX_DEPTH => 8, MAX_INTEGER => 9_007_199_254_740_992, KEPT => 256 };
use constant { REPLACEMENT => "\xEF\xBF\xBD", TRUNCATED => ',"truncated":true' };

# A number is what has a numeric flag and no string flag: "007" read from a file stays a string.
sub flags_say_number {
    my $flags = B::svref_2object(\$_[0])->FLAGS;
    return $flags & (B::SVf_IOK | B::SVf_NOK) && !($flags & B::SVf_POK);
}

BEGIN {
    *is_number  = defined &builtin::created_as_number ? \&builtin::created_as_number : \&flags_say_number;
    *is_boolean = defined &builtin::is_bool           ? \&builtin::is_bool           : sub { return '' };
}

my %escape = map { chr($_) => sprintf '\u%04x', $_ } 1 .. 31;
@escape{ "\0", '"', '\\', "\n", "\r", "\t" } = (REPLACEMENT, '\"', '\\\\', '\n', '\r', '\t');

# A character string, or bytes that are UTF-8 or something near it.
sub string {
    my $text = "$_[0]";
    return qq("$text") if $text !~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c;

    # What is longer can't fit a line, so it will be shortened anyway.
    $text = substr $text, 0, MAX_LINE if length $text > MAX_LINE;
    utf8::is_utf8($text) or utf8::decode($text) or $text = Encode::decode('UTF-8', $text);
    no warnings qw(surrogate non_unicode);
    $text =~ s/[^\x{0}-\x{D7FF}\x{E000}-\x{10FFFF}]/\x{FFFD}/g;
    utf8::encode($text);
    $text =~ s/([\x00-\x1f"\\])/$escape{$1}/g;
    return qq("$text");
}

# The shortest text that reads back as the same double; what is no finite number is named.
sub float {
    my ($value) = @_;
    return $value != $value ? '"NaN"' : $value > 0 ? '"Infinity"' : '"-Infinity"' if $value - $value != 0;
    my $text = "$value";    # %.15g, for what is not an integer
    for my $digits (15, 16, 17) {
        last if $text == $value && $text !~ /\A-?[0-9]{16,}\z/;
        $text = sprintf "%.${digits}g", $value;
    }
    # A bare run of digits beyond 2^53 would be taken for an exact integer.
    return abs $value > MAX_INTEGER && $text !~ /[.e]/ ? "$text.0" : $text;
}

# A number inside context or tags. Perl's own text of a double has 15 digits, which usually are enough.
sub number {
    my ($value) = @_;
    my $text = "$value";
    return $text if $text == $value && abs $value <= MAX_INTEGER;
    return qq("$text") if $text =~ /\A-?[0-9]{16,}\z/;
    return $value - $value == 0 ? float($value) : 'null';
}

# A hash reference. This loop is what a call spends most of its time in, so the usual values are encoded in place.
sub object {
    my ($hash, $depth) = @_;
    my $json = '';
    for my $key (keys %$hash) {
        my ($value, $text) = $hash->{$key};
        $json .= $key =~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c ? ',' . string($key) . ':' : qq(,"$key":);
        $json .=
            !defined $value || ref $value ? nested($value, ($depth || 1) + 1)
          : is_number($value) ? (($text = "$value") == $value && abs $value <= MAX_INTEGER ? $text : number($value))
          : $value =~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c ? string($value)
          : length $value < 2 && is_boolean($value) ? ($value ? 'true' : 'false') : qq("$value");
    }
    return '{' . substr($json, !!$json) . '}';
}

# Tags hold strings and numbers only, so a reference is sent as text.
sub tags {
    my ($hash) = @_;
    return object({ map { $_ => ref $hash->{$_} || is_boolean($hash->{$_}) ? as_text($hash->{$_}) : $hash->{$_} }
            keys %$hash });
}

my %open;      # the containers around the one at hand, by address: a cycle ends as text
my $budget;    # bytes that one value may still take: data that refer to themselves in many ways must end too

sub nested {
    my ($value, $depth) = @_;
    my ($type, $plain) = (ref $value, defined $value ? boolean($value) : 'null');
    return $plain if defined $plain;
    $budget = MAX_LINE if !%open;
    return string(as_text($value))
        if $type ne 'HASH' && $type ne 'ARRAY' || $depth > MAX_DEPTH || $budget < 0 || $open{ refaddr $value };

    local $open{ refaddr $value } = 1;
    my $json = $type eq 'HASH' ? object($value, $depth) : '[' . join(',',
        map { !defined $_ || ref $_ || is_boolean($_) ? nested($_, $depth + 1)
                : is_number($_) ? number($_) : string($_) } @$value) . ']';
    $budget -= length $json;
    return $json;
}

# \1 and \0, as JSON modules take them, the booleans that those modules return, and Perl's own from 5.36 on; undef for
# anything else.
sub boolean {
    my ($value) = @_;
    return $value ? 'true' : 'false' if is_boolean($value);
    my $ours = ref $value eq 'SCALAR' ? ($$value // '') =~ /\A[01]\z/
        : ref($value) =~ /\A(?:JSON::PP::Boolean|Types::Serialiser::Boolean|boolean)\z/;
    return $ours ? $$value ? 'true' : 'false' : undef;
}

sub as_text {
    my ($value) = @_;
    local ($@, $SIG{__DIE__});
    return boolean($value) // eval { "$value" } // sprintf '%s(0x%x)', ref $value, refaddr $value;
}

# A line's beginning and its optional context or tags, made to fit $room bytes: the longest string (keys don't count) is
# cut, again and again; when only short ones are left, context and tags go.
sub shorten {
    my ($head, $extra, $room) = @_;
    $room -= length TRUNCATED;
    my $json = $head . $extra;
    while ((my $excess = length($json) - $room) > 0) {
        my ($start, $length) = (0, 0);
        # The group within a group is there because one alone stops after 32,766 rounds before Perl 5.30.
        while ($json =~ /"((?:(?:[^"\\]++|\\.){1,30000})*+)"(:?)/g) {
            ($start, $length) = ($-[1], $+[1] - $-[1]) if $+[1] - $-[1] > $length && !$2;
        }
        if ($length > KEPT) {
            my $kept = substr $json, $start, max(KEPT, int($length / 2), $length - $excess);
            $kept =~ s/(?<!\\)((?:\\\\)*)\\(?:u[0-9a-f]{0,3})?\z/$1/;    # not within an escape …
            $kept =~ s/[\xC0-\xFF][\x80-\xBF]*\z//;                      # … nor within a character
            substr $json, $start, $length, $kept;
        }
        elsif ($extra eq '') { last }
        else { ($json, $extra) = ($head, '') }
    }
    return $json . TRUNCATED;
}

# === the stream =======================================================================================================

package MonitoringSDK::Stream;

# One stream of messages (one client, one seq) over one connection at a time: look up, connect, hello, welcome, send,
# acks, resend. Promises: nothing blocks and nothing dies; a line keeps its seq and is kept until it is settled, that
# is, acknowledged or refused; after a reconnect every unsettled line is sent again, in order.
#
#         retry time is due, a name         an address           connected, by TLS too           welcome
#   IDLE -------------------> LOOKING_UP ------------> CONNECTING ----------------> GREETING ----------> OPEN
#     | \________________________________________________/  |                           |                  |
#     |         it is an address, or a path                 |                           |                  |
#     +<-------- backoff -----------------------------------+---- refused, closed, or silent for 5 s with something due
#
# Perl runs signal handlers between any two statements, and one may leave for good, by die or exit. So whatever has to
# change together is one statement here: lines and seqs, lines and counts, what was sent and what is still to be sent.

use Digest::MD5 qw(md5_hex);
use Errno qw(EAGAIN EINPROGRESS EINTR);
use IO::Handle ();
use List::Util qw(max min);
use Socket qw(AF_UNIX AI_NUMERICHOST IPPROTO_TCP MSG_DONTWAIT MSG_NOSIGNAL SHUT_WR SOCK_STREAM SOL_SOCKET SO_ERROR
    TCP_NODELAY getaddrinfo pack_sockaddr_un);
use Time::HiRes qw(time);

use constant { IDLE => 0, LOOKING_UP => 1, CONNECTING => 2, GREETING => 3, OPEN => 4 };
# Seconds without a byte, with messages outstanding, until a connection counts as dead; the bounds of the pause before
# the first and before a late reconnect.
use constant { SILENCE => 5, BACKOFF => 0.1, BACKOFF_MAX => 30 };
# Bytes sent and not yet acknowledged; bytes handed to the socket, or taken from it, at once; how often in one call,
# which bounds the time it takes; from how many on they are compressed.
use constant { WINDOW => 4 * 1024**2, PORTION => 64 * 1024, PORTIONS => 8, FRAME => 1024 };
use constant { SEND_FLAGS => MSG_DONTWAIT | MSG_NOSIGNAL, DEFAULT => 'tcp://127.0.0.1:7411' };

# Where the sidecar is: a URL, the socket addresses that it stands for, what compresses for it, and what was said of it
# on stderr, which is one line each for the SDK's whole life.
sub target {
    my ($url, $codec) = @_;
    $url //= DEFAULT;
    local $@;
    my $wanted = ($codec // '') eq 'zlib';
    my $frame  = $wanted && eval { require MonitoringSDK::Zlib } && \&MonitoringSDK::Zlib::frame;
    print STDERR "wafermon: WAFERMON_COMPRESS needs MonitoringSDK/Zlib.pm and Compress::Raw::Zlib, sending lines\n"
        if $wanted && !$frame;
    my %target = (url => $url, addresses => [], compress => $frame);
    if ($url =~ m{\Aunix://(/.{1,106})\z}s) {
        $target{addresses} = [ { family => AF_UNIX, addr => pack_sockaddr_un("$1") } ];
        return \%target;
    }
    my ($scheme, $host, $port) =
        $url =~ m{\A(tcp|tls)://(?|\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?\z};
    if ($port && $port >= 1 && $port <= 65535 && ($scheme eq 'tcp' || eval { require MonitoringSDK::TLS })) {
        @target{qw(tls host port)} = ($scheme eq 'tls', $host, $port);
        (undef, @{ $target{addresses} }) =
            getaddrinfo($host, $port, { socktype => SOCK_STREAM, flags => AI_NUMERICHOST });
        $target{name} = !@{ $target{addresses} };
        return \%target;
    }
    my $hint = $url =~ m{\Atls://} ? ' (tls:// needs IO::Socket::SSL)' : '';
    print STDERR "wafermon: bad url '$url'$hint, using ", DEFAULT, "\n";
    return target(DEFAULT, $codec);
}

# An id of up to 32 hexadecimal digits. Opening the device for each would cost more than the rest of a span does, and a
# supply, or a handle that is kept, is not safe from a fork, or from a program that closes what it doesn't know. So the
# system's random bytes are read once, and the process, the moment and a count make each id another one; in a chroot
# without the device they have to do alone. The program's own rand() sequence stays untouched.
my ($random, $made) = ('', 0);
if (open my $device, '<:raw', '/dev/urandom') {
    sysread $device, $random, 32;
    ($random) = $random =~ /\A(.*)\z/s;    # tainted, ids could name no file under -T
}

sub hex_id {
    my ($digits) = @_;
    return substr md5_hex(join ' ', $random, $$, time, $made++), 0, $digits;
}

# A new ithread has a copy of all this.
sub CLONE {
    $random = join ' ', $random, threads->tid;
}

# Given are target, `hello`, JSON without its closing brace, and `count`, the hash that holds the SDK's stats.
# in, out: bytes of an unfinished reply, bytes that the socket did not take yet.
# window:  lines that are not settled, '' for one refused ahead of its turn; blank: how many of those; told: the seqs of
#          stats lines among them, which count nowhere; bytes: the length of all, unsent: of those never sent; base: the
#          seq of the line before the first; last: of the last; next: index of the first not sent on this connection.
# high:    the highest seq ever sent. heard: when a byte came last, or when something became due.
# offered, framed: whether the welcome said that stats lines, or frames, may be sent.
sub new {
    my ($class, %given) = @_;
    my $client = hex_id(16);
    return bless {
        %given, client => $client, mark => qq(,"client":"$client","seq":), phase => IDLE, sock => undef, address => 0,
        attempts => 0, retry_at => 0, heard => 0, welcomes => 0, offered => 0, framed => 0, in => '', out => '',
        window => [], blank => 0, told => {}, bytes => 0, unsent => 0, base => 0, last => 0, next => 0, high => 0,
    }, $given{target}{tls} ? 'MonitoringSDK::TLS' : $class;
}

sub is_open    { return $_[0]{phase} == OPEN }
sub is_idle    { return $_[0]{phase} == IDLE }
sub waiting    { return @{ $_[0]{window} } - $_[0]{blank} - keys %{ $_[0]{told} } }
sub descriptor { return $_[0]{sock} ? fileno $_[0]{sock} : () }

# Whether the sidecar takes stats lines, as far as it ever said.
sub tells { return $_[0]{offered} || !$_[0]{welcomes} }

# Takes a message, JSON without its closing brace, gives it the next seq, and sends when $enough wait for it, if given.
sub add {
    my ($self, $body, $now, $enough) = @_;
    my $window = $self->{window};
    (undef, @$self{qw(bytes unsent)}) = (push(@$window, $body . $self->{mark} . ++$self->{last} . "}\n"),
        $self->{bytes} + length $window->[-1], $self->{unsent} + length $window->[-1]);
    $self->write($now) if $enough && @$window - $self->{next} >= $enough;
}

# Takes a stats line.
sub tell {
    my ($self, $body) = @_;
    $self->{told}{ $self->{last} + 1 } = 1;
    $self->add($body);
}

# Takes lines that have their seqs, from 1 on.
sub adopt {
    my ($self, @lines) = @_;
    my $bytes = length join '', @lines;
    (@$self{qw(bytes unsent last)}, @{ $self->{window} }) = ($bytes, $bytes, scalar @lines, @lines);
}

# Everything that can be done now.
sub pump {
    my ($self, $now) = @_;
    $self->_begin_connect($now) while $self->{phase} == IDLE && $now >= $self->{retry_at};
    MonitoringSDK::Lookup::go_on($self, $now) if $self->{phase} == LOOKING_UP;
    $self->_finish_connect($now) if $self->{phase} == CONNECTING;
    $self->_read($now) if $self->{phase} >= GREETING;
    # Read first, then judge: the acks of an hour without a call are all there.
    $self->_lose($now) if $self->{phase} && $now - $self->{heard} > SILENCE && ($self->{next} || $self->{phase} < OPEN);
    $self->write($now);
}

# A name is looked up once for each attempt, by a process of its own, because that may take long. A program that lacks
# MonitoringSDK/Lookup.pm, or can't fork, waits for it.
sub _begin_connect {
    my ($self, $now) = @_;
    my $target = $self->{target};
    if ($target->{name} && !$self->{address}) {
        local $@;
        return if eval { require MonitoringSDK::Lookup } && MonitoringSDK::Lookup::begin($self, $now);
        (undef, @{ $target->{addresses} }) = getaddrinfo(@$target{qw(host port)}, { socktype => SOCK_STREAM });
    }
    $self->_connect($now);
}

sub _connect {
    my ($self, $now) = @_;
    my $address = $self->{target}{addresses}[ $self->{address} ] or return $self->_lose($now);
    socket my $sock, $address->{family}, SOCK_STREAM, 0 or return $self->_lose($now);
    $sock->blocking(0);
    setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;    # a Unix socket refuses it, and needs none
    @$self{qw(sock phase heard in)} = ($sock, CONNECTING, $now, '');
    connect $sock, $address->{addr} or $! == EINPROGRESS or $self->_lose($now);
}

sub _finish_connect {
    my ($self, $now) = @_;
    my $error = getsockopt $self->{sock}, SOL_SOCKET, SO_ERROR;
    return $self->_lose($now) if !defined $error || unpack 'i', $error;
    $self->_greet($now) if getpeername $self->{sock};    # else not yet
}

sub _greet {
    my ($self) = @_;
    my $compress = $self->{target}{compress} ? ',"compress":["zlib"]' : '';
    @$self{qw(phase out)} = (GREETING, qq($self->{hello}$compress,"client":"$self->{client}"}\n));
}

# The next address of the same name at once, otherwise a pause: exponential, with full jitter.
sub _lose {
    my ($self, $now, @reason) = @_;
    my $target = $self->{target};
    if (@reason && !$target->{ $reason[0] eq 'bad_frame' ? 'refused_frames' : 'refused' }++) {
        my $text = join ': ', grep { defined && length } @reason;
        print STDERR "wafermon: refused by $target->{url}: ", $text =~ s/[^\x20-\x7e]/?/gr, "\n";
    }
    my $next = $self->is_open ? 0 : $self->{address} + 1;
    $self->hang_up;
    $self->{address} = $next < @{ $target->{addresses} } ? $next : 0;
    return $self->{retry_at} = $now if $self->{address};
    $self->{retry_at} = $now + (1 - hex(hex_id(8)) / 2**32) * min(BACKOFF * 2**$self->{attempts}++, BACKOFF_MAX);
}

# Closes the descriptor without telling the peer.
sub hang_up { @{ $_[0] }{qw(sock phase in out next)} = (undef, IDLE, '', '', 0) }

sub _read {
    my ($self, $now) = @_;
    my $got;
    for (1 .. PORTIONS) {
        $got = sysread $self->{sock}, $self->{in}, PORTION, length $self->{in} or last;
        $self->{heard} = $now;
    }
    my $ended = defined $got ? !$got : $! != EAGAIN && $! != EINTR;
    # Acks are cumulative: of hundreds in a row the last is enough, and parsing them all would make a call slow.
    $self->{in} =~ s/(?:\{"type":"ack","seq":[0-9]+\}\n)+(?=\{"type":"ack","seq":[0-9]+\}\n)//g;
    # A reply is taken before it is removed: taken twice it does nothing more.
    while ((my $end = index $self->{in}, "\n") >= 0) {
        $self->_take_reply(substr($self->{in}, 0, $end), $now);
        return if $self->is_idle;
        substr $self->{in}, 0, $end + 1, '';
    }
    $self->_lose($now) if $ended || length $self->{in} > PORTION;
}

# Replies are flat objects of strings and numbers, but for the welcome's features.
sub _take_reply {
    my ($self, $line, $now) = @_;
    my %reply = (type => '', code => '');
    $reply{$1} = $2 // $3 while $line =~ /"(\w+)"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([0-9]+))/g;
    if ($reply{type} eq 'ack') {
        $self->_settle($reply{seq});
    }
    elsif ($reply{type} eq 'welcome' && $self->{phase} == GREETING) {
        $self->_settle($reply{acked});
        my $framed  = ($reply{compress} // '') eq 'zlib' && !!$self->{target}{compress};
        my $offered = $line =~ /"features"\s*:\s*\[[^\]]*"stats"/;
        my $again   = $self->{count}{reconnects} + !!$self->{welcomes};
        (@$self{qw(phase attempts framed offered welcomes)}, $self->{count}{reconnects}) =
            (OPEN, 0, $framed, !!$offered, 1, $again);
    }
    elsif ($reply{type} eq 'error' && $reply{seq}) {
        $self->_reject($reply{seq});
    }
    elsif ($reply{type} eq 'error') {
        $self->{target}{compress} = undef if $reply{code} eq 'bad_frame';    # the same lines go plainly, for good
        $self->_lose($now, @reply{qw(code detail)});
    }
}

# Everything up to this seq is in the sidecar's journal.
sub _settle {
    my ($self, $seq) = @_;
    my ($window, $base, $told) = @$self{qw(window base told)};
    my $count = max(0, min(($seq || 0) - $base, $self->{high} - $base));
    $count++ while $count < @$window && $window->[$count] eq '';
    return if !$count;
    my $blank   = $self->{blank} && grep { $_ eq '' } @$window[ 0 .. $count - 1 ];
    my $bytes   = length join '', @$window[ 0 .. $count - 1 ];
    my @settled = %$told ? grep { $_ <= $base + $count } keys %$told : ();
    my $next    = max(0, $self->{next} - $count);
    my $acked   = $self->{count}{acked} + $count - $blank - @settled;
    (@$self{qw(base next bytes blank)}, $self->{count}{acked}) = ($base + $count, $next, $self->{bytes} - $bytes,
        $self->{blank} - $blank, $acked, splice(@$window, 0, $count), delete @$told{@settled});
}

# One message can't be accepted, ever. Those before it still wait for their ack.
sub _reject {
    my ($self, $seq) = @_;
    my ($window, $told, $count) = @$self{qw(window told count)};
    my $index = $seq - $self->{base} - 1;
    return if $index < 0 || $seq > $self->{high} || $window->[$index] eq '';
    my $rejected = $count->{rejected} + !exists $told->{$seq};
    ($window->[$index], @$self{qw(bytes blank)}, $count->{rejected}) = ('', $self->{bytes} - length $window->[$index],
        $self->{blank} + 1, $rejected, delete $told->{$seq});
    $self->_settle(0);
}

# Hands the socket what it takes.
sub write {
    my ($self, $now) = @_;
    for (1 .. PORTIONS) {
        $self->_fill($now) if $self->{out} eq '' && $self->{phase} == OPEN && $self->{next} < @{ $self->{window} };
        my $length = length $self->{out} or return;
        substr $self->{out}, 0, $self->_send || 0, '';
        next if length $self->{out} < $length;
        $self->_lose($now) if $! != EAGAIN && $! != EINTR;
        return;
    }
}

sub _send { return send $_[0]{sock}, $_[0]{out}, SEND_FLAGS }

# Takes the next lines from the window, as a frame where that is granted and worth it. What went out on an earlier
# connection goes out again.
sub _fill {
    my ($self, $now) = @_;
    my ($window, $next, $base, $told, $count) = @$self{qw(window next base told count)};
    my ($again, $out, $lines, $sent, $resent, $unsent) =
        ($self->{high} - $base, '', 0, @$count{qw(sent resent)}, $self->{unsent});
    $self->{heard} = $now if !$next;
    while ($next < @$window && length $out < PORTION && ($next < $again || $self->{bytes} - $unsent < WINDOW)) {
        my $line = $window->[ $next++ ];
        next if $line eq '';
        $out .= $line;
        $lines++;
        $unsent -= length $line if $next > $again;
        next if %$told && $told->{ $base + $next };
        $next > $again ? $sent++ : $resent++;
    }
    $out = $self->{target}{compress}->($out, $lines) if $self->{framed} && length $out >= FRAME;
    (@$self{qw(out next high unsent)}, @$count{qw(sent resent)}) =
        ($out, $next, max($self->{high}, $base + $next), $unsent, $sent, $resent);
}

# The lines that are not settled.
sub lines { return grep { $_ ne '' } @{ $_[0]{window} } }

# Ends the sending side and reads to the end: closing with an unread ack would make the kernel send a reset, which may
# take with it what the sidecar has not read yet.
sub finish {
    my ($self, $clock, $deadline) = @_;
    shutdown $self->{sock}, SHUT_WR if $self->is_open;
    while ($self->is_open && (my $left = $deadline - $clock->()) > 0) {
        vec(my $readable = '', $self->descriptor, 1) = 1;
        select $readable, undef, undef, $left;
        $self->_read($clock->());
    }
    $self->hang_up;
}

# === the spill ========================================================================================================

package MonitoringSDK::Spill;

# Messages that find the buffer full, on disk. Promises: only the newest file is written; each file holds whole lines
# and is a stream of its own; a file is removed only when every line in it is settled; as long as this process lives
# it holds a lock on its files, and the one that sends it renames it first, so that no two ever do. Survives a kill, not a
# power cut.

use Fcntl qw(LOCK_EX LOCK_NB O_APPEND O_CREAT O_EXCL O_NOFOLLOW O_RDWR SEEK_SET);
use List::Util qw(sum);

# Bytes of a file, and of all files together; of how many files a stats line tells.
use constant { FILE => 1024**2, ALL => 64 * 1024**2, TOLD => 1_000 };

# Given are dir, service, `stream`, which makes a stream, and `count`, the hash that holds the SDK's stats. A file is
# {path, handle, stream, bytes, told}: `told` is {client, last}. Its stream has the lines from when it is sent. The
# oldest file is the first one; the last one is open for more while `writing`. `streams` are
# what is told of the newest files there have been, also of those that are gone.
sub new {
    my ($class, %given) = @_;
    return bless { %given, files => [], bytes => 0, writing => 0, streams => [] }, $class;
}

sub default_dir { return -d -w '/var/spool/wafermon' ? '/var/spool/wafermon' : "/tmp/wafermon-$>" }

# Messages in files that are still ours.
sub waiting {
    return sum(0, map { $_->{stream}{last} ? $_->{stream}->waiting : $_->{told}{last} } @{ $_[0]{files} });
}

# Client and last seq of each file there has been.
sub told { return grep { $_->{last} } @{ $_[0]{streams} } }

# One message, JSON without its closing brace; false if it can't be kept.
sub add {
    my ($self, $body) = @_;
    my $file = $self->{files}[-1];
    if (!$self->{writing} || $file->{bytes} + length($body) + 64 > FILE) {
        $file = $self->_create($self->{stream}->()) or return 0;
        (@$self{qw(writing files)}) = (1, [ @{ $self->{files} }, $file ]);
        push @{ $self->{streams} }, $file->{told};
        shift @{ $self->{streams} } if @{ $self->{streams} } > TOLD;
    }
    my $seq = $file->{told}{last} + 1;
    return $self->_append($file, "$body$file->{stream}{mark}$seq}\n");
}

sub _create {
    my ($self, $stream) = @_;
    my $dir = $self->{dir};
    mkdir $dir, 0700;
    # In /tmp anybody could have made a directory, or a link, of that name.
    my $mode = (lstat $dir)[2];
    return if $dir =~ m{\A/tmp/wafermon-\d+\z} && !(-d _ && -o _ && !($mode & 022));
    my $path = "$dir/$self->{service}.$$.$stream->{client}.ldjson";
    unlink $path;    # only a close that a signal handler cut off can have left one of this client
    sysopen my $handle, $path, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW, 0660 or return;
    chmod 0660, $handle;    # whatever the umask: in a setgid folder the group is the sidecar's
    flock $handle, LOCK_EX | LOCK_NB;
    return { path => $path, handle => $handle, stream => $stream, bytes => 0,
        told => { client => $stream->{client}, last => 0 } };
}

# Whole lines only: what a full disk has left of one is taken back. One statement writes and counts, see the stream.
sub _append {
    my ($self, $file, $line) = @_;
    my ($told, $count, $length) = ($file->{told}, $self->{count}, length $line);
    return 0 if $self->{bytes} + $length > ALL;
    no warnings 'uninitialized';    # what a write that failed has written
    my $wrote;
    (undef, $file->{bytes}, $self->{bytes}, $told->{last}, $count->{spilled}) = (
        $wrote = syswrite($file->{handle}, $line),
        $file->{bytes} + $length * ($wrote == $length),
        $self->{bytes} + $length * ($wrote == $length),
        $told->{last} + ($wrote == $length),
        $count->{spilled} + ($wrote == $length),
    );
    return 1 if $wrote == $length;
    truncate $file->{handle}, $file->{bytes};
    return 0;
}

# Closes the newest file and sends them, one after the other.
sub pump {
    my ($self, $now) = @_;
    $self->{writing} = 0;
    while (my $file = $self->{files}[0]) {
        my $left = $file->{told}{last};    # to the one that has taken it
        if (_claim($file)) {
            $file->{stream}->pump($now);
            return if $file->{stream}->waiting;
            unlink $file->{path};
            $left = 0;
        }
        (@$self{qw(bytes files)}, $self->{count}{handed_over}) = ($self->{bytes} - $file->{bytes},
            [ @{ $self->{files} }[ 1 .. $#{ $self->{files} } ] ], $self->{count}{handed_over} + $left);
    }
}

sub _claim {
    my ($file) = @_;
    return 1 if $file->{stream}{last};
    rename $file->{path}, "$file->{path}.taken" or return $file->{told}{last} == 0;
    $file->{path} .= '.taken';
    seek $file->{handle}, 0, SEEK_SET;
    local $/ = "\n";
    my @lines = readline $file->{handle};
    $file->{stream}->adopt(@lines[ 0 .. $file->{told}{last} - 1 ]);
    return 1;
}

# The program ends: what is left is for the sidecar, once the locks are free; so are the lines of the SDK's own stream,
# with the seqs they have, if they can be kept.
sub hand_over {
    my ($self, $stream) = @_;
    my ($count, $owed, @lines) = ($self->{count}, $stream->waiting, $stream->lines);
    my $spilled = $count->{spilled};
    my $file    = @lines && $self->_create($stream);
    shift @lines while $file && @lines && $self->_append($file, $lines[0]);
    unlink $file->{path} if $file && !$file->{bytes};
    my $lost = grep { !/\A\{"type":"stats"/ } @lines;
    my $left = $count->{handed_over} + $owed - $lost + $self->waiting;
    rename $_->{path}, $_->{path} =~ s/\.taken\z//r for @{ $self->{files} };
    my @own = qw(window told blank bytes unsent next);
    (@$count{qw(dropped handed_over spilled)}, @$self{qw(files bytes)}, @$stream{@own}) =
        ($count->{dropped} + $lost, $left, $spilled + $owed - $lost, [], 0, [], {}, 0, 0, 0, 0);
}

sub descriptor { return map { $_->{stream}->descriptor } @{ $_[0]{files} } }

# === the calls ========================================================================================================

package MonitoringSDK;

# Each call checks its arguments, encodes one message and gives it to the stream, or to the spill when too many wait
# there. Promises: no call blocks or dies because of the network; a message's content is fixed when the call returns;
# always: called = acked + rejected + dropped + waiting + handed_over.

use Carp qw(croak);
use List::Util qw(max min sum);
use Scalar::Util qw(looks_like_number refaddr weaken);
use Sys::Hostname qw(hostname);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime time);

BEGIN {    # the encoder's functions, by their own names
    no strict 'refs';
    *$_ = MonitoringSDK::Encoder->can($_) for qw(as_text float object shorten string tags);
}

our @CARP_NOT = qw(MonitoringSDK::Span Log::Any::Adapter::Wafermon);

# Messages, and bytes, that wait to be sent.
use constant { BUFFER => 1_000, BUFFER_BYTES => 4 * 1024**2 };
# Seconds between two looks for acks in a hot loop, unless this many bytes are unacknowledged.
use constant { LOOK_EVERY => 0.01, LOOK_BYTES => 256 * 1024 };
# Seconds that the first call of a process waits for the welcome, and that a message waits for a stats line.
use constant { WELCOME => 0.1, TELL => 5 };
# A line without client, seq and the brace; the clock, as a constant that Perl folds.
use constant { BODY => MonitoringSDK::Encoder::MAX_LINE - 64, MONOTONIC => CLOCK_MONOTONIC };

my @STATS    = qw(sent acked rejected dropped spilled handed_over resent reconnects);
my @LEVELS   = qw(debug info warning error critical);
my %LEVEL    = (warn => 'warning', err => 'error', fatal => 'critical', map { $_ => $_ } @LEVELS);
my $TRACE_ID = qr/\A[\x21-\x7e]{1,128}\z/;
my $COUNT    = qr/\A[1-9][0-9]{0,8}\z/;
my $W3C      = qr/(?!0{32})[0-9a-f]{32}/;

my %alive;    # every open object, weakly: END has to find those that globals or closures still hold

sub new {
    my ($class, %option) = @_;
    my @unknown = grep { !/\A(?:service|url|trace_id|buffer|spill_dir|token|coalesce)\z/ } sort keys %option;
    croak("unknown option: @unknown") if @unknown;
    my $service = _first($option{service}, @ENV{qw(WAFERMON_SERVICE OTEL_SERVICE_NAME)}) // croak('no service');
    my ($name) = $service =~ /\A(?!wafermon\z)([A-Za-z0-9._:-]{1,128})\z/ or croak("bad service: $service");
    my $trace_id = _first($option{trace_id});
    croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    ($option{$_} // 1) =~ $COUNT or croak("bad $_: $option{$_}") for qw(buffer coalesce);

    # Tainted, a folder could hold no file under -T; who named it has decided that it shall.
    my ($dir) = _first($option{spill_dir}, $ENV{WAFERMON_SPILL_DIR}, MonitoringSDK::Spill::default_dir()) =~ /(.*)/s;

    my $self = bless {
        service => $name, host => hostname(), path => [ _surroundings($trace_id) ],
        token     => _first($option{token}, $ENV{WAFERMON_TOKEN}),
        spill_dir => $dir,
        limit     => $option{buffer} // (($ENV{WAFERMON_BUFFER} // '') =~ $COUNT ? $ENV{WAFERMON_BUFFER} : BUFFER),
        coalesce  => $option{coalesce} // 1,
        off       => ($ENV{WAFERMON_DISABLED} // '') !~ /\A(?:0|false|no|)\z/i,    # disabled or closed
    }, $class;
    $self->{coalesce} = min($self->{coalesce}, $self->{limit});
    $self->{target} = MonitoringSDK::Stream::target(_first($option{url}, $ENV{WAFERMON_URL}), $ENV{WAFERMON_COMPRESS})
        if !$self->{off};
    weaken($alive{ refaddr $self } = $self);
    $self->_begin;
    return $self;
}

# What is given, or else the first variable that is set; an empty one is not.
sub _first { return scalar((grep { defined && length } @_)[0]) }

# A stream and a spill of this process's own, everything at zero: in new, and in the first call of a forked child or of
# a new thread. What it inherited goes away with its objects, which close descriptors without telling the peer: it is the
# parent's business. A sidecar that answers at once is waited for: then the kernel has the first messages, too, when
# their calls return.
sub _begin {
    my ($self) = @_;
    my ($service, $host, $token) = @$self{qw(service host token)};
    chop(my $hello = object({ v => 2, type => 'hello', service => $service, host => $host, pid => $$, ack => \1,
        sdk => "perl/$VERSION", defined $token ? (token => $token) : () }));
    my %given  = (target => $self->{target}, hello => $hello, count => { map { $_ => 0 } @STATS });
    my $stream = sub { MonitoringSDK::Stream->new(%given) };
    my $own    = $stream->();
    my $spill  = MonitoringSDK::Spill->new(
        dir => $self->{spill_dir}, service => $service, stream => $stream, count => $given{count});
    my $origin = join '', qq(,"service":"$service","host":), string($host), qq(,"pid":$$);
    @$self{qw(pid count stream spill origin)} = ($$, $given{count}, $own, $spill, $origin);
    @$self{qw(unreported look_at measured told tell_at final)} =
        (0, 0, [ _clock(), Time::HiRes::clock() ], 0, undef, 0);
    $self->_describe;
    $self->_work(_clock() + WELCOME, sub { $own->is_open || $own->is_idle });
    return;
}

# A new ithread has copies of all objects, which begin anew at their first call there; spans are the other thread's.
sub CLONE {
    my @here = grep { defined } values %alive;
    %alive = ();
    for my $self (@here) {
        $_->{pid} = 0 for $self, @{ $self->{path} };
        weaken($alive{ refaddr $self } = $self);
    }
}

sub _clock { return clock_gettime(MONOTONIC) }

# --- trace and spans -------------------------------------------------------------------------------------------------

# `path` holds what surrounds a call, outermost first: what the environment says, then each open span. The environment's
# trace and span are a pair: a span of another trace is nobody's parent here.
sub _surroundings {
    my ($given) = @_;
    my ($trace, $span) = map { $_ // '' } @ENV{qw(WAFERMON_TRACE_ID WAFERMON_SPAN_ID)};
    ($trace, $span) = ($1, $2)
        if "$trace$span" eq '' && ($ENV{TRACEPARENT} // '') =~ /\A[0-9a-f]{2}-($W3C)-(?!0{16})([0-9a-f]{16})-/;
    my $here = $given // ($trace =~ $TRACE_ID ? $trace : undef);
    my $ours = $span =~ /\A[0-9a-f]{16}\z/ && ($here // $trace) eq $trace;
    return { id => $ours ? $span : undef, trace_here => $here };
}

# What every message says of its origin, encoded once; and the same for child processes, in the environment.
sub _describe {
    my ($self) = @_;
    my ($span, $trace) = @{ $self->{path}[-1] }{qw(id trace_here)};
    $self->{place} = join '', $self->{origin}, defined $trace ? (',"trace_id":', string($trace)) : (),
        defined $span ? qq(,"span_id":"$span") : ();
    my %id = (WAFERMON_TRACE_ID => $trace, WAFERMON_SPAN_ID => $span, TRACEPARENT => _traceparent($trace, $span));
    for my $name (keys %id) {
        defined $id{$name} ? $ENV{$name} = $id{$name} : delete $ENV{$name};
    }
}

# For children that speak OpenTelemetry: the hash of its id stands for a job, and for the parent where no span is open.
sub _traceparent {
    my ($trace, $span) = @_;
    return undef if !defined $trace;
    my $w3c    = $trace =~ /\A$W3C\z/;
    my $digest = '';
    if (!$w3c || !defined $span) {
        require Digest::SHA;
        $digest = Digest::SHA::sha256_hex($trace);
    }
    return join '-', '00', $w3c ? $trace : substr($digest, 0, 32), $span // substr($digest, 32, 16), '01';
}

sub set_trace_id {
    my ($self, $trace_id) = @_;
    croak('bad trace id: ' . ($trace_id // 'undef')) if ($trace_id // '') !~ $TRACE_ID;
    my $path = $self->{path};
    $path->[0]{id} = undef if @$path == 1 && $trace_id ne ($path->[0]{trace_here} // '');
    $_->{trace_here} = $trace_id for @$path;
    $self->_describe;
    return;
}

sub start_span {
    my ($self, $name, $trace_id, $tags) = @_;
    croak('empty name') if ($name // '') eq '';
    croak("bad trace id: $trace_id") if defined $trace_id && $trace_id !~ $TRACE_ID;
    my ($around, $extra) = ($self->{path}[-1], _tags($tags));
    my $span = {
        id => MonitoringSDK::Stream::hex_id(16), pid => $$, tags => { %{ $tags // {} } }, started => _clock(),
        trace_here => $trace_id // $around->{trace_here} // MonitoringSDK::Stream::hex_id(32),
        fields => ',"name":' . string($name) . (defined $around->{id} ? qq(,"parent_id":"$around->{id}") : ''),
    };
    push @{ $self->{path} }, $span;
    $self->_describe;
    $self->_submit('span_start', $span->{fields}, $extra);
    @$span{qw(start place)} = @$self{qw(ts place)};
    return $span->{id};
}

# Out of order it ends that span only; those inside stay open. The process that started it ends it.
sub end_span {
    my ($self, $id, $status, $tags) = @_;
    $status //= 'ok';
    croak("unknown status: $status") if $status !~ /\A(?:ok|error)\z/;
    _tags($tags);
    my $path = $self->{path};
    my ($at) = grep { $path->[$_]{id} eq ($id // '') } 1 .. $#$path;
    my $span = splice @$path, $at // croak('unknown span: ' . ($id // 'undef')), 1;
    $self->_describe;
    return if $span->{pid} != $$ || $self->{pid} != $$;
    local $self->{place} = $span->{place};
    my %tags = (%{ $span->{tags} }, %{ $tags // {} });
    my $took = int(1e6 * (_clock() - $span->{started}));
    return $self->_submit('span_end', qq($span->{fields},"status":"$status","start":$span->{start},"duration":$took),
        _tags(%tags ? \%tags : undef));
}

sub span {
    my ($self, @arguments) = @_;
    return MonitoringSDK::Span->_new($self, $self->start_span(@arguments));
}

# --- the calls: a programming error is reported at the caller's line --------------------------------------------------

sub log_event {
    my ($self, $level, $message, $context) = @_;
    $level = $LEVEL{ $level // '' } || _level($level);
    croak('no message') if !defined $message;
    croak('context is not a hash reference') if defined $context && ref $context ne 'HASH';
    my $extra = defined $context ? ',"context":' . object($context) : '';
    return $self->_submit('event', qq(,"level":"$level","message":) . string($message), $extra);
}

# The level that a name in capitals, or a number of other libraries, means.
sub _level {
    my ($level) = @_;
    my $name = lc($level // '');
    return $LEVEL{$name} if $LEVEL{$name};
    croak('unknown level: ' . ($level // 'undef')) if $name !~ /\A(?:[1-4][0-9]|50)\z/;
    return $LEVELS[ int($name / 10) - 1 ];
}

sub log_metric {
    my ($self, $name, $value, $unit, $tags, $kind) = @_;
    croak('empty name') if ($name // '') eq '';
    croak("unknown kind: $kind") if defined $kind && $kind !~ /\A(?:gauge|counter)\z/;
    my $fields = ',"name":' . string($name) . ',"value":' . float(_number(value => $value));
    $fields .= ',"unit":' . string($unit) if defined $unit;
    $fields .= ',"kind":"counter"' if ($kind // '') eq 'counter';
    return $self->_submit('metric', $fields, _tags($tags));
}

sub log_progress {
    my ($self, $job_id, $percent, $status) = @_;
    $status //= 'running';
    croak('bad job id: ' . ($job_id // 'undef')) if ($job_id // '') !~ $TRACE_ID;
    $percent = _number(percent => $percent);
    croak("percent out of 0-100: $percent") if !($percent >= 0 && $percent <= 100);
    croak("bad status: $status") if $status eq '' || length $status > 64;
    return $self->_submit('progress',
        ',"job_id":' . string($job_id) . ',"percent":' . float($percent) . ',"status":' . string($status), '');
}

sub log_resource {
    my ($self, @given) = @_;
    my %value;
    @value{qw(cpu mem disk net)} = (grep { defined } @given) ? @given : $self->_measure;
    $value{$_} = _number($_ => $value{$_}) for grep { defined $value{$_} } keys %value;
    my @names = grep { defined $value{$_} && $value{$_} - $value{$_} == 0 } qw(cpu mem disk net);
    return $self->_submit('resource', join('', map { qq(,"$_":) . float($value{$_}) } @names), '');
}

# cpu, mem and disk of the own process; Linux counts no network bytes by process.
sub _measure {
    my ($self) = @_;
    my ($then, $used) = @{ $self->{measured} };
    my ($now, $using) = @{ $self->{measured} = [ _clock(), Time::HiRes::clock() ] };
    local $!;
    my $file;
    my %own = map { /^(VmRSS|read_bytes|write_bytes):\s+(\d+)/mg }
        map { open($file, '<', "/proc/self/$_") ? join '', readline $file : () } qw(status io);
    return (sprintf('%.1f', 100 * ($using - $used) / max($now - $then, 1e-6)), $own{VmRSS} && $own{VmRSS} * 1024,
        defined $own{read_bytes} ? $own{read_bytes} + $own{write_bytes} : undef);
}

# Text that reads as a number is one: much of what Perl measures was text a moment ago.
sub _number {
    my ($what, $value) = @_;
    $value = as_text($value) if ref $value;    # Math::BigFloat and its like
    croak("$what is not a number: " . ($value // 'undef')) if !looks_like_number($value);
    return $value + 0;
}

sub _tags {
    my ($tags) = @_;
    croak('tags is not a hash reference') if defined $tags && ref $tags ne 'HASH';
    return defined $tags ? ',"tags":' . tags($tags) : '';
}

# --- on its way ------------------------------------------------------------------------------------------------------

# Makes a message of its own fields and `extra`, context or tags, which may go if it is too long, and lets it go as far
# as it can.
sub _submit {
    my ($self, $type, $fields, $extra) = @_;
    $self->_begin if $self->{pid} != $$;
    my $ts   = $self->{ts} = int(time * 1e6);
    my $body = qq({"type":"$type","ts":$ts$self->{place}$fields$extra);
    utf8::downgrade($body);
    $body = shorten(substr($body, 0, length($body) - length $extra), $extra, BODY) if length $body > BODY;

    my ($stream, $count) = @$self{qw(stream count)};
    if ($self->{off}) {
        $count->{dropped}++;
    }
    elsif ($self->{busy}) {
        $stream->add($body);    # a signal handler's call within a call
    }
    else {
        local ($!, $self->{busy}) = (0, 1);
        my $now = clock_gettime(MONOTONIC);
        $self->_pump($now) if $now >= $self->{look_at} || $stream->{bytes} > LOOK_BYTES;
        if ($stream->{last} - $stream->{high} < $self->{limit} && $stream->{unsent} < BUFFER_BYTES) {
            $stream->add($body, $now, $self->{coalesce});
        }
        elsif (!$self->{spill}->add($body)) {
            ($count->{dropped}, $self->{unreported}) = ($count->{dropped} + 1, $self->{unreported} + 1);
        }
    }
    return;
}

# All network work that can be done without waiting.
sub _pump {
    my ($self, $now) = @_;
    my ($stream, $spill) = @$self{qw(stream spill)};
    $stream->pump($now);
    $self->{look_at} = $stream->is_open ? $now + LOOK_EVERY : $stream->is_idle ? $stream->{retry_at} : 0;
    return if !$stream->is_open;
    $self->_tell_in_time($now) if $stream->{offered};
    return if $stream->{last} > $stream->{high};
    $spill->pump($now);
    my $dropped = $self->{unreported} or return;
    $self->{unreported} = 0;
    local $self->{busy};
    $self->log_event(warning => "$dropped messages dropped", { kind => 'dropped', count => $dropped });
}

# Works until what is wanted holds; false if that takes longer than the deadline.
sub _work {
    my ($self, $deadline, $wanted) = @_;
    return $self->{off} if $self->{off} || $self->{busy};
    local ($!, $self->{busy}) = (0, 1);
    while (1) {
        $self->_pump(my $now = _clock());
        return 1 if $wanted->();
        return 0 if $now >= $deadline;
        # Until something is there to read, or for 10 ms: then a reconnect may be due, or the socket take more.
        my $readable = '';
        vec($readable, $_, 1) = 1 for map { $_->descriptor } @$self{qw(stream spill)};
        select $readable, undef, undef, min($deadline - $now, 0.01);
    }
}

# --- stats, flush, close ---------------------------------------------------------------------------------------------

sub _waiting { return $_[0]{stream}->waiting + $_[0]{spill}->waiting }

# Each message is in one place, and is moved on in one statement. So this is right also where a signal handler has left
# a call by die: the message is there, or it is not.
sub _called { return sum(@{ $_[0]{count} }{qw(acked rejected dropped handed_over)}, $_[0]->_waiting) }

# A line that tells the sidecar what this SDK has sent, so that it can judge what is missing.
sub _tell {
    my ($self, $final) = @_;
    my ($stream, $called, $ts) = ($self->{stream}, $self->_called, int(time * 1e6));
    my $streams = join ',', map { qq({"client":"$_->{client}","last":$_->{last}}) } $self->{spill}->told;
    my $body    = qq({"type":"stats","ts":$ts$self->{origin},"called":$called,"dropped":$self->{count}{dropped},)
        . qq("unsent":0,"last":$stream->{last},"streams":[$streams]) . ($final ? ',"final":true' : '');
    utf8::downgrade($body);
    $stream->tell($body);
    @$self{qw(told tell_at final)} = ($called, undef, $final);
}

sub _tell_in_time {
    my ($self, $now) = @_;
    my $due = $self->{tell_at} //= $self->_called > $self->{told} ? $now + TELL : undef;
    return if !defined $due || $now < $due || $self->{final};
    $self->_tell(0);
    $self->{stream}->write($now);
}

# Whether a last stats line is still owed, which an SDK that was never called is not.
sub _owes_final {
    return !$_[0]{final} && $_[0]{stream}->tells && $_[0]->_called > 0;
}

sub get_stats {
    my ($self) = @_;
    $self->flush(0);
    my $stream = $self->{stream};
    my $full   = $stream->{last} - $stream->{high} >= $self->{limit} || $stream->{unsent} >= BUFFER_BYTES;
    my $state  = $full ? 'overflow' : $stream->is_open ? 'connected' : 'disconnected';
    return { %{ $self->{count} }, called => $self->_called, waiting => $self->_waiting, state => $state };
}

sub flush {
    my ($self, $timeout) = @_;
    $self->_begin if $self->{pid} != $$;
    return $self->_work(_clock() + ($timeout // 5), sub { !$self->_waiting });
}

sub close {
    my ($self, $timeout) = @_;
    my $deadline = _clock() + ($timeout // 2);
    $self->_begin if $self->{pid} != $$;
    my ($stream, $spill) = @$self{qw(stream spill)};
    $self->_work($deadline, sub {
        my $quiet = $stream->is_open && $stream->{last} == $stream->{high} && !$self->{unreported};
        $self->_tell(1) if $quiet && $self->_owes_final;
        return $stream->is_idle || !($stream->lines || $spill->waiting || $self->_owes_final);
    });
    return if $self->{off} || $self->{busy};    # END does it when a signal handler's exit has unwound the call
    local $!;
    $self->_tell(1) if $self->_owes_final;
    $spill->hand_over($stream);
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
    eval { $self->close } if ($self->{pid} // 0) == $$;
}

END { $_->DESTROY for grep { defined } values %alive }

# === the guard ========================================================================================================

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

Opens the SDK. The sidecar need not be there; one that answers is waited for, 0.1 seconds at most, so that the first
messages go to the kernel within their calls too. Options win over the environment:

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

C<WAFERMON_COMPRESS=zlib> sends what waits in compressed frames, where the sidecar grants that. It needs
F<MonitoringSDK/Zlib.pm> and L<Compress::Raw::Zlib>, a core module.

C<WAFERMON_DISABLED> set to anything but C<0>, C<false> or C<no> opens nothing: calls are checked and counted as
dropped.

=head2 log_event($level, $message, [\%context])

C<$level> is C<debug>, C<info>, C<warning>, C<error> or C<critical>, in capitals too; C<warn>, C<err>, C<fatal> and the
numbers 10 to 50 of other libraries are taken as what they mean.

=head2 log_metric($name, $value, [$unit, \%tags, $kind])

C<$value> is anything that looks like a number, infinities, NaN and objects like those of Math::BigFloat too.
C<$unit> is a UCUM unit where there is one.
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

Always: called = acked + rejected + dropped + waiting + handed_over, also after a signal handler has left a call by
C<die>: that call has then made its message, or it has not.

A sidecar that offers to take them is sent the same figures, which count nowhere: at the first call from 5 seconds after
a message on, and at the end.

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
C<\0>, the booleans of JSON::PP and its relatives, and from Perl 5.36 on those of Perl itself (C<1 == 1>) are true and
false. Hash and array references nest to 8 levels;
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
C<%ENV> (C<WAFERMON_TRACE_ID>, C<WAFERMON_SPAN_ID>, and for OpenTelemetry C<TRACEPARENT>, where a hash stands for a job
id), so that programs started by C<system>, C<exec> or pipes fall into the same trace, under the right span. A new
ithread has copies of all objects, which begin anew there as in a forked child; objects are not for sharing.

There is no thread and no timer: acknowledgements are read, and a lost connection is made again, inside calls,
C<get_stats> too. A program that computes for an hour sends nothing new in that hour.

A host name is looked up at each attempt to connect, by F<MonitoringSDK/Lookup.pm> in a process of its own, since it may
take long; without that file it is done within the call. A program with a handler for SIGCHLD sees such a signal, as it
does after C<system>. Addresses need no lookup.

=head1 SEE ALSO

L<Log::Any::Adapter::Wafermon>, where the program logs through L<Log::Any>, and L<Log::Log4perl::Appender::Wafermon>,
where it does through L<Log::Log4perl>.

=cut
