package MonitoringSDK::Stream;

# One stream of messages (one client, one seq) over one connection at a time: connect, hello, welcome, send, acks,
# resend. Promises: nothing blocks and nothing dies; a line keeps its seq and is kept until it is settled, that is,
# acknowledged or refused; after a reconnect every unsettled line is sent again, in order.
#
#         retry time is due            connected, by TLS too           welcome
#   IDLE -------------------> CONNECTING ----------------> GREETING ----------> OPEN
#     ^                           |                           |                  |
#     +--------- backoff ---------+------ refused, closed, or silent for 5 s with something due

use 5.014;
use warnings;
use Errno qw(EAGAIN EINPROGRESS EINTR);
use Exporter 'import';
use IO::Handle ();
use List::Util qw(max min);
use Socket qw(AF_UNIX IPPROTO_TCP MSG_DONTWAIT MSG_NOSIGNAL SHUT_WR SOCK_STREAM SOL_SOCKET SO_ERROR TCP_NODELAY
    getaddrinfo pack_sockaddr_un);
use Time::HiRes ();

our @EXPORT_OK = qw(hex_id resolve target);

use constant { IDLE => 0, CONNECTING => 1, GREETING => 2, OPEN => 3 };
# Seconds without a byte, with messages outstanding, until a connection counts as dead; the bounds of the pause before
# the first and before a late reconnect.
use constant { SILENCE => 5, BACKOFF => 0.1, BACKOFF_MAX => 30 };
# Bytes sent and not yet acknowledged; bytes handed to the socket, or taken from it, at once; how often in one call,
# which bounds the time it takes.
use constant { WINDOW => 4 * 1024**2, PORTION => 64 * 1024, PORTIONS => 8 };
use constant SEND_FLAGS => MSG_DONTWAIT | MSG_NOSIGNAL;

# Where the sidecar is: a URL, the socket addresses that it stands for, and whether a refusal was said: that is one line
# on stderr for the SDK's whole life.
sub target { my ($url) = @_;
    my $default = 'tcp://127.0.0.1:7411';
    my $target  = _parse($url // $default);
    if (!$target) {
        my $hint = $url =~ m{\Atls://} ? ' (tls:// needs IO::Socket::SSL)' : '';
        print STDERR "wafermon: bad url '$url'$hint, using $default\n";
        $target = _parse($default);
    }
    resolve($target);
    return $target;
}

sub _parse { my ($url) = @_;
    return { url => $url, addresses => [ { family => AF_UNIX, addr => pack_sockaddr_un("$1") } ] }
        if $url =~ m{\Aunix://(/.{1,106})\z}s;
    my ($scheme, $ipv6, $name, $port) =
        $url =~ m{\A(tcp|tls)://(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?\z} or return;
    local $@;
    return if $port < 1 || $port > 65535 || $scheme eq 'tls' && !eval { require MonitoringSDK::TLS };
    return { url => $url, tls => $scheme eq 'tls', host => $ipv6 // $name, port => $port, addresses => [] };
}

# Looking up a name may block, so it is done when the SDK is opened and again only in flush, where waiting is allowed,
# if it found nothing.
sub resolve { my ($target) = @_;
    return if @{ $target->{addresses} };
    (undef, @{ $target->{addresses} }) = getaddrinfo(@$target{qw(host port)}, { socktype => SOCK_STREAM });
}

# A supply of the system's random bytes, in hexadecimal, since opening the device costs more than a span does. A forked
# child must not share it. The program's own rand() sequence stays untouched.
my ($supply, $owner) = ('', 0);

sub hex_id { my ($digits) = @_;
    if ($owner != $$ || length $supply < $digits) {
        ($supply, $owner) = ('', $$);
        if (open my $device, '<:raw', '/dev/urandom') { sysread $device, $supply, 256 }
        # In a chroot without the device: different at least from every other moment and process.
        $supply ||= pack 'N8', map { $$, Time::HiRes::time() * 1e6 + $_ & 0xFFFF_FFFF } 1 .. 4;
        $supply = unpack 'H*', $supply;
    }
    return substr $supply, 0, $digits, '';
}

# Given are target, `hello`, JSON without its closing brace, and `count`, the hash that holds the SDK's stats.
# in, out: bytes of an unfinished reply, bytes that the socket did not take yet.
# window:  lines that are not settled, '' for one refused ahead of its turn; blank: how many of those; bytes: the length
#          of all, unsent: of those never sent; base: the seq of the line before the first; last: of the last; next:
#          index of the first not sent on this connection.
# high:    the highest seq ever sent. heard: when a byte came last, or when something became due.
sub new { my ($class, %given) = @_;
    my $client = hex_id(16);
    return bless {
        %given, client => $client, mark => qq(,"client":"$client","seq":),
        phase => IDLE, sock => undef, address => 0, attempts => 0, retry_at => 0, heard => 0, welcomes => 0, in => '',
        out => '', window => [], blank => 0, bytes => 0, unsent => 0, base => 0, last => 0, next => 0, high => 0,
    }, $given{target}{tls} ? 'MonitoringSDK::TLS' : $class;
}

sub is_open    { return $_[0]{phase} == OPEN }
sub is_idle    { return $_[0]{phase} == IDLE }
sub has_room   { return $_[0]{phase} == OPEN && $_[0]{out} eq '' && $_[0]{bytes} < WINDOW }
sub waiting    { return @{ $_[0]{window} } - $_[0]{blank} }
sub descriptor { return $_[0]{sock} ? fileno $_[0]{sock} : () }

# Takes a message, JSON without its closing brace, gives it the next seq, and sends when $enough wait for it, if given.
sub add { my ($self, $body, $now, $enough) = @_;
    my $window = $self->{window};
    push @$window, $body . $self->{mark} . ++$self->{last} . "}\n";
    my $length = length $window->[-1];
    $self->{bytes}  += $length;
    $self->{unsent} += $length;
    $self->write($now) if $enough && @$window - $self->{next} >= $enough;
}

# Everything that can be done now.
sub pump { my ($self, $now) = @_;
    $self->_connect($now) while $self->{phase} == IDLE && $now >= $self->{retry_at};
    $self->_finish_connect($now) if $self->{phase} == CONNECTING;
    $self->_read($now) if $self->{phase} >= GREETING;
    # Read first, then judge: the acks of an hour without a call are all there.
    $self->_lose($now) if $self->{phase} && $now - $self->{heard} > SILENCE && ($self->{next} || $self->{phase} < OPEN);
    $self->write($now);
}

sub _connect { my ($self, $now) = @_;
    my $address = $self->{target}{addresses}[ $self->{address} ] or return $self->_lose($now);
    socket my $sock, $address->{family}, SOCK_STREAM, 0 or return $self->_lose($now);
    $sock->blocking(0);
    setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;    # a Unix socket refuses it, and needs none
    @$self{qw(sock phase heard)} = ($sock, CONNECTING, $now);
    connect $sock, $address->{addr} or $! == EINPROGRESS or $self->_lose($now);
}

sub _finish_connect { my ($self, $now) = @_;
    my $error = getsockopt $self->{sock}, SOL_SOCKET, SO_ERROR;
    return $self->_lose($now) if !defined $error || unpack 'i', $error;
    $self->_greet($now) if getpeername $self->{sock};    # else not yet
}

sub _greet { my ($self) = @_;
    @$self{qw(phase out)} = (GREETING, qq($self->{hello},"client":"$self->{client}"}\n));
}

# The next address of the same name at once, otherwise a pause: exponential, with full jitter.
sub _lose { my ($self, $now, @reason) = @_;
    my $target = $self->{target};
    if (@reason && !$target->{refused}++) {
        my $text = join ': ', grep { defined && length } @reason;
        print STDERR "wafermon: refused by $target->{url}: ", $text =~ s/[^\x20-\x7e]/?/gr, "\n";
    }
    my $next = $self->is_open ? 0 : $self->{address} + 1;
    $self->hang_up;
    $self->{address} = $next < @{ $target->{addresses} } ? $next : 0;
    return $self->{retry_at} = $now if $self->{address};
    $self->{retry_at} = $now + (1 - hex(hex_id(8)) / 2**32) * min(BACKOFF * 2**$self->{attempts}++, BACKOFF_MAX);
}

# Closes the descriptor without a word to the peer.
sub hang_up { @{ $_[0] }{qw(sock phase in out next)} = (undef, IDLE, '', '', 0) }

sub _read { my ($self, $now) = @_;
    my $got;
    for (1 .. PORTIONS) {
        $got = sysread $self->{sock}, $self->{in}, PORTION, length $self->{in} or last;
        $self->{heard} = $now;
    }
    my $ended = defined $got ? !$got : $! != EAGAIN && $! != EINTR;
    # Acks are cumulative: of hundreds in a row the last is enough, and parsing them all would make a call slow.
    $self->{in} =~ s/(?:\{"type":"ack","seq":[0-9]+\}\n)+(?=\{"type":"ack","seq":[0-9]+\}\n)//g;
    my @lines = split /\n/, $self->{in}, -1;
    $self->{in} = pop @lines // '';
    for my $line (@lines) {
        $self->_take_reply($line, $now);
        return if $self->is_idle;
    }
    $self->_lose($now) if $ended || length $self->{in} > PORTION;
}

# Replies are flat objects of strings and numbers.
sub _take_reply { my ($self, $line, $now) = @_;
    my %reply = (type => '');
    $reply{$1} = $2 // $3 while $line =~ /"(\w+)"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([0-9]+))/g;
    if ($reply{type} eq 'ack') { $self->_settle($reply{seq}) }
    elsif ($reply{type} eq 'welcome' && $self->{phase} == GREETING) {
        $self->_settle($reply{acked});
        @$self{qw(phase attempts)} = (OPEN, 0);
        $self->{count}{reconnects}++ if $self->{welcomes}++;
    }
    elsif ($reply{type} eq 'error' && $reply{seq}) { $self->_reject($reply{seq}) }
    elsif ($reply{type} eq 'error') { $self->_lose($now, @reply{qw(code detail)}) }
}

# Everything up to this seq is in the sidecar's journal. The three middle statements have no branch: Perl runs signal
# handlers at branches, and one that ends the program must find lines and seqs in step.
sub _settle { my ($self, $seq) = @_;
    my ($window, $count) = ($self->{window}, ($seq || 0) - $self->{base});
    $count = max(0, min($count, $self->{high} - $self->{base}));
    $count++ while $count < @$window && $window->[$count] eq '';
    my $sent = min($count, $self->{next});
    my @settled = splice @$window, 0, $count;
    $self->{base} += $count;
    $self->{next} -= $sent;
    $self->{bytes} -= length join '', @settled;
    my $blank = grep { $_ eq '' } @settled;
    $self->{blank} -= $blank;
    $self->{count}{acked} += $count - $blank;
}

# One message can't be accepted, ever. Those before it still wait for their ack.
sub _reject { my ($self, $seq) = @_;
    my ($window, $index) = ($self->{window}, $seq - $self->{base} - 1);
    return if $index < 0 || $seq > $self->{high} || $window->[$index] eq '';
    $self->{bytes} -= length $window->[$index];
    $window->[$index] = '';
    $self->{blank}++;
    $self->{count}{rejected}++;
    $self->_settle(0);
}

# Hands the socket what it takes. Again no branch between sending and forgetting: what was sent must not be found in
# `out` again.
sub write { my ($self, $now) = @_;
    no warnings 'uninitialized';
    for (1 .. PORTIONS) {
        $self->_fill($now) if $self->{out} eq '' && $self->{phase} == OPEN && $self->{next} < @{ $self->{window} };
        return if $self->{out} eq '';
        my $sent = $self->_send;
        substr $self->{out}, 0, $sent, '';
        next if $sent;
        $self->_lose($now) if $! != EAGAIN && $! != EINTR;
        return;
    }
}

sub _send { my ($self) = @_; return send $self->{sock}, $self->{out}, SEND_FLAGS }

# Takes the next lines from the window. What went out on an earlier connection goes out again.
sub _fill { my ($self, $now) = @_;
    my ($window, $next, $again, $out) = (@$self{qw(window next)}, $self->{high} - $self->{base}, '');
    $self->{heard} = $now if !$next;
    while ($next < @$window && length $out < PORTION && ($next < $again || $self->{bytes} - $self->{unsent} < WINDOW)) {
        my $line = $window->[ $next++ ];
        $out .= $line;
        $self->{count}{ $next > $again ? 'sent' : 'resent' }++ if $line ne '';
        $self->{unsent} -= length $line if $next > $again;
    }
    @$self{qw(out next high)} = ($out, $next, max($self->{high}, $self->{base} + $next));
}

# Returns the lines that are not settled and forgets them: they are somebody else's from now on.
sub give_up { my ($self) = @_;
    my @lines = grep { $_ ne '' } @{ $self->{window} };
    @$self{qw(window blank bytes unsent next)} = ([], 0, 0, 0, 0);
    return @lines;
}

# Ends the sending side and reads to the end: closing with an unread ack would make the kernel send a reset, which may
# take with it what the sidecar has not read yet.
sub finish { my ($self, $clock, $deadline) = @_;
    shutdown $self->{sock}, SHUT_WR if $self->is_open;
    while ($self->is_open && (my $left = $deadline - $clock->()) > 0) {
        vec(my $readable = '', $self->descriptor, 1) = 1;
        select $readable, undef, undef, $left;
        $self->_read($clock->());
    }
    $self->hang_up;
}

1;
