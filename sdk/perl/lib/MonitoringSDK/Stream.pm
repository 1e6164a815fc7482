package MonitoringSDK::Stream;

# One stream of messages (one client, one seq) over one connection at a time: connect, hello, welcome, send, acks,
# resend. Promises: nothing blocks and nothing dies; a line keeps its seq and is kept until it is settled, that is,
# acknowledged or refused; after a reconnect every unsettled line is sent again, in order.
#
#            retry time is due         connected          hello sent          welcome
#   IDLE ----------------> CONNECTING ----> (SHAKING, TLS) ----> GREETING ----------------> OPEN
#     ^                        |                  |                  |                       |
#     +------ backoff ---------+--- refused, closed, or silent for 5 s with something due ---+

use 5.014;
use warnings;
use Errno qw(EAGAIN EINPROGRESS EINTR);
use IO::Handle ();
use List::Util qw(max min);
use MonitoringSDK::Random qw(fraction);
use Socket qw(IPPROTO_TCP MSG_DONTWAIT MSG_NOSIGNAL SHUT_WR SOCK_STREAM SOL_SOCKET SO_ERROR TCP_NODELAY);

use constant { IDLE => 0, CONNECTING => 1, SHAKING => 2, GREETING => 3, OPEN => 4 };
# Seconds without a byte, with messages outstanding, until a connection counts as dead; the bounds of the pause before
# the first and before a late reconnect.
use constant { SILENCE => 5, BACKOFF => 0.1, BACKOFF_MAX => 30 };
# Bytes sent and not yet acknowledged; bytes handed to the socket, or taken from it, at once; how often in one call,
# which bounds the time it takes.
use constant { WINDOW => 4 * 1024**2, PORTION => 64 * 1024, PORTIONS => 8 };
use constant SEND_FLAGS => MSG_DONTWAIT | MSG_NOSIGNAL;

# Given are target, client, hello, and `count`, the hash that holds the SDK's stats.
# in, out: bytes of an unfinished reply, bytes that the socket did not take yet.
# window:  lines that are not settled, '' for one refused ahead of its turn; waiting: how many; bytes: their length;
#          base: the seq of the line before the first; next: index of the first not sent on this connection.
# high:    the highest seq ever sent. heard: when a byte came last, or when something became due.
sub new { my ($class, %given) = @_;
    return bless {
        %given, mark => qq(,"client":"$given{client}","seq":),
        phase => IDLE, sock => undef, address => 0, attempts => 0, retry_at => 0, heard => 0, welcomes => 0,
        in => '', out => '', window => [], waiting => 0, bytes => 0, base => 0, next => 0, high => 0,
    }, $class;
}

sub is_open    { return $_[0]{phase} == OPEN }
sub is_idle    { return $_[0]{phase} == IDLE }
sub has_room   { return $_[0]{phase} == OPEN && $_[0]{out} eq '' && $_[0]{bytes} < WINDOW }
sub waiting    { return $_[0]{waiting} }
sub lines      { return grep { $_ ne '' } @{ $_[0]{window} } }
sub descriptor { return $_[0]{sock} ? fileno $_[0]{sock} : () }

# Takes a line that has its seq.
sub take { my ($self, $line) = @_;
    push @{ $self->{window} }, $line;
    $self->{waiting}++;
    $self->{bytes} += length $line;
}

# Takes a message, JSON without its closing brace, and gives it the next seq.
sub add { my ($self, $body) = @_;
    $self->take($body . $self->{mark} . ($self->{base} + @{ $self->{window} } + 1) . "}\n");
}

# The same if there is room, and sends when $enough are waiting for it. Every call comes here, hence all in one.
sub offer { my ($self, $body, $now, $enough) = @_;
    return 0 if $self->{phase} != OPEN || $self->{out} ne '' || $self->{bytes} >= WINDOW;
    my $window = $self->{window};
    push @$window, $body . $self->{mark} . ($self->{base} + @$window + 1) . "}\n";
    $self->{waiting}++;
    $self->{bytes} += length $window->[-1];
    $self->write($now) if @$window - $self->{next} >= $enough;
    return 1;
}

# Everything that can be done now.
sub pump { my ($self, $now) = @_;
    $self->_connect($now) while $self->{phase} == IDLE && $now >= $self->{retry_at};
    $self->_finish_connect($now) if $self->{phase} == CONNECTING;
    $self->_shake_hands($now)    if $self->{phase} == SHAKING;
    $self->_read($now)           if $self->{phase} >= GREETING;
    # Read first, then judge: the acks of an hour without a call are all there.
    $self->_lose($now) if $self->{phase} && $now - $self->{heard} > SILENCE && ($self->{next} || $self->{phase} < OPEN);
    $self->write($now) if $self->{phase} >= GREETING;
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
    my ($sock, $target) = @$self{qw(sock target)};
    my $error = getsockopt $sock, SOL_SOCKET, SO_ERROR;
    return $self->_lose($now) if !defined $error || unpack 'i', $error;
    return if !getpeername $sock;    # not yet
    return $self->_greet if !$target->{tls};
    $self->{phase} = SHAKING;
    my %files = (SSL_ca_file => 'CA', SSL_cert_file => 'CERT', SSL_key_file => 'KEY');
    my @files = map { my $file = $ENV{"WAFERMON_TLS_$files{$_}"}; defined $file && length $file ? ($_ => $file) : () } keys %files;
    IO::Socket::SSL->start_SSL($sock, SSL_startHandshake => 0, SSL_hostname => $target->{host},
        SSL_verifycn_name => $target->{host}, SSL_verifycn_scheme => 'http', @files) or $self->_lose($now, 'tls', $IO::Socket::SSL::SSL_ERROR);
}

sub _shake_hands { my ($self, $now) = @_;
    return $self->_greet if $self->{sock}->connect_SSL;
    $self->_lose($now, 'tls', $IO::Socket::SSL::SSL_ERROR) if $! != EAGAIN;
}

sub _greet { @{ $_[0] }{qw(phase out)} = (GREETING, $_[0]{hello}) }

# The next address of the same name at once, otherwise a pause: exponential, with full jitter.
sub _lose { my ($self, $now, @reason) = @_;
    $self->{target}->say_refused(@reason) if @reason;
    my $next = $self->is_open ? 0 : $self->{address} + 1;
    $self->hang_up;
    $self->{address} = $next < @{ $self->{target}{addresses} } ? $next : 0;
    return $self->{retry_at} = $now if $self->{address};
    $self->{retry_at} = $now + (1 - fraction()) * min(BACKOFF * 2**$self->{attempts}++, BACKOFF_MAX);
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
    $count = max(0, min($count, scalar @$window));
    $count++ while $count < @$window && $window->[$count] eq '';
    my $sent = min($count, $self->{next});
    my @settled = splice @$window, 0, $count;
    $self->{base} += $count;
    $self->{next} -= $sent;
    $self->{bytes} -= length join '', @settled;
    my $acked = grep { $_ ne '' } @settled;
    $self->{waiting} -= $acked;
    $self->{count}{acked} += $acked;
}

# One message can't be accepted, ever. Those before it still wait for their ack.
sub _reject { my ($self, $seq) = @_;
    my ($window, $index) = ($self->{window}, $seq - $self->{base} - 1);
    return if $index < 0 || $index > $#$window || $window->[$index] eq '';
    $self->{bytes} -= length $window->[$index];
    $window->[$index] = '';
    $self->{waiting}--;
    $self->{count}{rejected}++;
    $self->_settle(0);
}

# Hands the socket what it takes. Again no branch between sending and forgetting: what was sent must not be found in
# `out` again.
sub write { my ($self, $now) = @_;
    no warnings 'uninitialized';
    my $tls = $self->{target}{tls};
    local $SIG{PIPE} = 'IGNORE' if $tls;
    for (1 .. PORTIONS) {
        $self->_fill($now) if $self->{out} eq '' && $self->{phase} == OPEN && $self->{next} < @{ $self->{window} };
        return if $self->{out} eq '';
        my $sent = $tls ? syswrite $self->{sock}, $self->{out} : send $self->{sock}, $self->{out}, SEND_FLAGS;
        substr $self->{out}, 0, $sent, '';
        next if $sent;
        $self->_lose($now) if $! != EAGAIN && $! != EINTR;
        return;
    }
}

# Takes the next lines from the window. What went out on an earlier connection goes out again.
sub _fill { my ($self, $now) = @_;
    my ($window, $next, $again) = (@$self{qw(window next)}, $self->{high} - $self->{base});
    $self->{heard} = $now if !$next;
    my ($out, $sent, $resent) = ('', 0, 0);
    while ($next < @$window && length $out < PORTION) {
        my $line = $window->[ $next++ ];
        $out .= $line;
        $next > $again ? $sent++ : $line ne '' && $resent++;
    }
    @$self{qw(out next high)} = ($out, $next, max($self->{high}, $self->{base} + $next));
    $self->{count}{sent}   += $sent;
    $self->{count}{resent} += $resent;
}

# Forgets the window, which is somebody else's from now on, ends the sending side and reads to the end: closing with an
# unread ack would make the kernel send a reset, which may take with it what the sidecar has not read yet.
sub finish { my ($self, $clock, $deadline) = @_;
    @$self{qw(window waiting bytes next)} = ([], 0, 0, 0);
    return $self->is_open && $self->{sock}->stop_SSL(SSL_fast_shutdown => 1) if $self->{target}{tls};
    shutdown $self->{sock}, SHUT_WR if $self->is_open;
    while ($self->is_open && (my $left = $deadline - $clock->()) > 0) {
        vec(my $readable = '', $self->descriptor, 1) = 1;
        select $readable, undef, undef, $left;
        $self->_read($clock->());
    }
    $self->hang_up;
}

1;
