package MonitoringSDK::Stream;

# One stream of messages (one client, one seq) over one connection at a time: connect, hello, welcome, send, acks,
# resend. Promises: nothing blocks and nothing dies; a line keeps its seq and is kept until it is settled, that is,
# acknowledged or refused; after a reconnect every unsettled line is sent again, in order.
#
#            retry time is due         connected          hello sent          welcome
#   IDLE ----------------> CONNECTING ----> (SHAKING, TLS) ----> GREETING ----------------> OPEN
#     ^                        |                  |                  |                       |
#     +------ backoff ---------+--- refused, closed, or silent for 5 s with something due ---+

use strict;
use warnings;
use Errno qw(EAGAIN EINPROGRESS EINTR EWOULDBLOCK);
use IO::Handle ();
use MonitoringSDK::Random qw(fraction);
use Socket qw(IPPROTO_TCP MSG_DONTWAIT MSG_NOSIGNAL SHUT_WR SOCK_STREAM SOL_SOCKET SO_ERROR TCP_NODELAY);

use constant { IDLE => 0, CONNECTING => 1, SHAKING => 2, GREETING => 3, OPEN => 4 };
use constant {
    SILENCE     => 5,              # seconds without a byte, with messages outstanding, until the connection counts as dead
    BACKOFF     => 0.1,            # first and longest mean of the pause before a reconnect
    BACKOFF_MAX => 30,
    WINDOW      => 4 * 1024**2,    # bytes sent and not yet acknowledged
    PORTION     => 64 * 1024,      # bytes handed to the socket, or taken from it, at once
    PORTIONS    => 8,              # of them in one call, which bounds the time it takes
    SEND_FLAGS  => MSG_DONTWAIT | MSG_NOSIGNAL,
};

# `count` is the hash that holds the SDK's stats.
sub new {
    my ($class, %given) = @_;
    return bless {
        %given,                    # target, client, hello, count
        mark => qq(,"client":"$given{client}","seq":),
        phase => IDLE, sock => undef, address => 0, attempts => 0, retry_at => 0, welcomes => 0,
        heard => 0,                # when a byte came last, or when something became due
        in => '', out => '',       # bytes of an unfinished reply, bytes the socket did not take yet
        window => [],              # lines not settled at the front; undef for one refused ahead of its turn
        bytes => 0,                # their length
        base => 0,                 # seq of the line before the window
        next => 0,                 # index in the window of the first line not sent on this connection
        high => 0,                 # highest seq ever sent
        settled => 0,
    }, $class;
}

sub is_open   { return $_[0]{phase} == OPEN }
sub is_idle   { return $_[0]{phase} == IDLE }
sub waiting   { return $_[0]{base} + @{ $_[0]{window} } - $_[0]{settled} }
sub unsent    { return @{ $_[0]{window} } - $_[0]{next} }
sub retry_at  { return $_[0]{phase} == IDLE ? $_[0]{retry_at} : undef }
sub lines     { return grep { defined } @{ $_[0]{window} } }

# Whether a further message may leave the buffer.
sub has_room { return $_[0]{phase} == OPEN && $_[0]{out} eq '' && $_[0]{bytes} < WINDOW }

# Gives a message, JSON without its closing brace, the next seq.
sub add {
    my ($self, $body) = @_;
    my $window = $self->{window};
    $body .= $self->{mark} . ($self->{base} + @$window + 1) . "}\n";
    push @$window, $body;
    $self->{bytes} += length $body;
    return;
}

# Takes the message if there is room, and sends when $enough are waiting for it; in one sub, since every call comes here.
sub offer {
    my ($self, $body, $now, $enough) = @_;
    return 0 if $self->{phase} != OPEN || $self->{out} ne '' || $self->{bytes} >= WINDOW;
    my $window = $self->{window};
    $body .= $self->{mark} . ($self->{base} + @$window + 1) . "}\n";
    push @$window, $body;
    $self->{bytes} += length $body;
    $self->write($now) if @$window - $self->{next} >= $enough;
    return 1;
}

# Takes lines that have their seq already.
sub add_lines {
    my ($self, @lines) = @_;
    push @{ $self->{window} }, @lines;
    $self->{bytes} += length for @lines;
    return;
}

# Everything that can be done now.
sub pump {
    my ($self, $now) = @_;
    $self->_connect($now) while $self->{phase} == IDLE && $now >= $self->{retry_at};
    return if $self->{phase} == IDLE;
    $self->_finish_connect($now) if $self->{phase} == CONNECTING;
    $self->_shake_hands($now)    if $self->{phase} == SHAKING;
    $self->_read($now)           if $self->{phase} >= GREETING;
    # Read first, then judge: the acks of an hour without a call are all there.
    if ($now - $self->{heard} > SILENCE && ($self->{next} || $self->{phase} < OPEN) && $self->{phase} != IDLE) {
        $self->_lose($now);
    }
    $self->write($now) if $self->{phase} >= GREETING;
    return;
}

sub _connect {
    my ($self, $now) = @_;
    my $target    = $self->{target};
    my @addresses = $target->addresses;
    my $address   = $addresses[ $self->{address} ] or return $self->_lose($now);
    socket my $sock, $address->{family}, SOCK_STREAM, 0 or return $self->_lose($now);
    $sock->blocking(0);
    setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1 if !$target->is_unix;
    @$self{qw(sock phase heard)} = ($sock, CONNECTING, $now);
    return if connect($sock, $address->{addr}) || $! == EINPROGRESS;
    return $self->_lose($now);
}

sub _finish_connect {
    my ($self, $now) = @_;
    my $writable = '';
    vec($writable, fileno $self->{sock}, 1) = 1;
    return if !(select undef, $writable, undef, 0);
    my $error = getsockopt $self->{sock}, SOL_SOCKET, SO_ERROR;
    return $self->_lose($now) if !defined $error || unpack 'i', $error;
    if ($self->{target}->is_tls) {
        $self->{phase} = SHAKING;
        IO::Socket::SSL->start_SSL($self->{sock}, SSL_startHandshake => 0, SSL_hostname => $self->{target}{host},
            SSL_verifycn_name => $self->{target}{host}, SSL_verifycn_scheme => 'http')
            or $self->_lose($now);
        return;
    }
    return $self->_greet;
}

sub _shake_hands {
    my ($self, $now) = @_;
    return $self->_greet if $self->{sock}->connect_SSL;
    return if $! == EAGAIN || $! == EWOULDBLOCK;
    $self->{target}->say_refused('tls', $IO::Socket::SSL::SSL_ERROR);
    return $self->_lose($now);
}

sub _greet {
    my ($self) = @_;
    @$self{qw(phase out)} = (GREETING, $self->{hello});
    return;
}

# The next address of the same name at once, otherwise a pause: exponential, with full jitter.
sub _lose {
    my ($self, $now) = @_;
    my $welcomed = $self->{phase} == OPEN;
    $self->_hang_up;
    if (!$welcomed && ++$self->{address} < $self->{target}->addresses) {
        $self->{retry_at} = $now;
        return;
    }
    my $mean_bound = BACKOFF * 2**$self->{attempts}++;
    $self->{attempts} = 16 if $self->{attempts} > 16;
    $self->{retry_at} = $now + (1 - fraction()) * ($mean_bound < BACKOFF_MAX ? $mean_bound : BACKOFF_MAX);
    $self->{address}  = 0;
    return;
}

# Closes the descriptor without a word to the peer: a forked child does the same with what it inherited.
sub _hang_up {
    my ($self) = @_;
    if (my $sock = $self->{sock}) {
        $sock->isa('IO::Socket::SSL') ? $sock->close(SSL_no_shutdown => 1) : close $sock;
    }
    @$self{qw(sock phase in out next)} = (undef, IDLE, '', '', 0);
    return;
}

sub _read {
    my ($self, $now) = @_;
    my $end;
    for (1 .. PORTIONS) {
        my $got = sysread $self->{sock}, $self->{in}, PORTION, length $self->{in};
        if (!$got) {
            next if !defined $got && $! == EINTR;
            $end = defined $got || ($! != EAGAIN && $! != EWOULDBLOCK);
            last;
        }
        $self->{heard} = $now;
        last if $got < PORTION && !$self->{target}->is_tls;    # which has its own buffer below
    }
    if ($self->{in} =~ /\n/) {
        my @lines = split /\n/, $self->{in}, -1;
        $self->{in} = pop @lines;
        for my $line (@lines) {
            $self->_take_reply($line, $now);
            return if $self->{phase} == IDLE;
        }
    }
    $self->_lose($now) if $end || length $self->{in} > PORTION;
    return;
}

# Replies are flat objects of strings and numbers.
sub _take_reply {
    my ($self, $line, $now) = @_;
    my %reply;
    while ($line =~ /"(\w+)"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([0-9]+))/g) {
        $reply{$1} = defined $2 ? $2 : $3;
    }
    my $type = defined $reply{type} ? $reply{type} : '';
    if ($type eq 'ack') {
        $self->_settle($reply{seq});
    }
    elsif ($type eq 'welcome' && $self->{phase} == GREETING) {
        $self->_settle($reply{acked});
        @$self{qw(phase attempts)} = (OPEN, 0);
        $self->{count}{reconnects}++ if $self->{welcomes}++;
    }
    elsif ($type eq 'error' && $reply{seq}) {
        $self->_reject($reply{seq});
    }
    elsif ($type eq 'error') {
        $self->{target}->say_refused(@reply{qw(code detail)});
        $self->_lose($now);
    }
    return;
}

# Everything up to this seq is in the sidecar's journal.
sub _settle {
    my ($self, $seq) = @_;
    my $count = ($seq || 0) - $self->{base};
    my $window = $self->{window};
    $count = @$window if $count > @$window;
    return if $count <= 0;
    my @lines = grep { defined } $self->_shift($count);
    $self->{bytes} -= length join '', @lines;
    $self->{count}{acked} += @lines;
    $self->{settled} += @lines;
    return;
}

# One message can't be accepted, ever. Those before it still wait for their ack.
sub _reject {
    my ($self, $seq) = @_;
    my $window = $self->{window};
    my $index  = $seq - $self->{base} - 1;
    return if $index < 0 || $index > $#$window || !defined $window->[$index];
    $self->{bytes} -= length $window->[$index];
    $window->[$index] = undef;
    $self->{count}{rejected}++;
    $self->{settled}++;
    $self->_shift(1) while @$window && !defined $window->[0];
    return;
}

# Takes settled lines off the front. No branch between these statements: Perl runs signal handlers at branches, and one
# that ends the program must find lines and seqs in step.
sub _shift {
    my ($self, $count) = @_;
    my @lines = splice @{ $self->{window} }, 0, $count;
    $self->{base} += $count;
    $self->{next} -= $count;
    $self->{next} = 0 if $self->{next} < 0;
    return @lines;
}

# Hands the socket what it takes.
sub write {
    my ($self, $now) = @_;
    local $!;
    for (1 .. PORTIONS) {
        $self->_fill($now) if $self->{out} eq '' && $self->{phase} == OPEN;
        return if $self->{out} eq '';
        my $sent = $self->{target}->is_tls ? $self->_write_tls : $self->_send;
        next if $sent;
        return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
        return $self->_lose($now);
    }
    return;
}

# No branch here either: what was sent must not be found in `out` again.
sub _send {
    my ($self) = @_;
    no warnings 'uninitialized';
    my $sent = send $self->{sock}, $self->{out}, SEND_FLAGS;
    substr $self->{out}, 0, $sent, '';
    return $sent;
}

sub _write_tls {
    my ($self) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $sent = syswrite $self->{sock}, $self->{out};
    substr $self->{out}, 0, $sent, '' if $sent;
    return $sent;
}

# Takes the next lines from the window. What went out on an earlier connection goes out again.
sub _fill {
    my ($self, $now) = @_;
    my ($window, $next, $count) = @$self{qw(window next count)};
    return if $next > $#$window;
    $self->{heard} = $now if !$next;
    my $again = $self->{high} - $self->{base};
    my ($out, $sent, $resent) = ('', 0, 0);
    while ($next < @$window && length $out < PORTION) {
        defined(my $line = $window->[ $next++ ]) or next;
        $out .= $line;
        $next > $again ? $sent++ : $resent++;
    }
    @$self{qw(out next)} = ($out, $next);
    $self->{high} += $next - $again if $next > $again;
    $count->{sent}   += $sent;
    $count->{resent} += $resent;
    return;
}

# The window is somebody else's from now on: later acks settle nothing here.
sub forget {
    my ($self) = @_;
    $self->{settled} += $self->lines;
    $self->{bytes} = 0;
    $self->_shift(scalar @{ $self->{window} });
    return;
}

# Adds what to wait for to the two sets of select().
sub watch {
    my ($self) = @_;
    return if !$self->{sock};
    my $descriptor = fileno $self->{sock};
    my $sending = $self->{phase} == CONNECTING || $self->{out} ne '' || $self->{phase} == OPEN && $self->unsent;
    vec($_[1], $descriptor, 1) = 1 if $self->{phase} != CONNECTING;
    vec($_[2], $descriptor, 1) = 1 if $sending;
    return;
}

# Ends the sending side and reads to the end: closing with an unread ack would make the kernel send a reset, which may
# take with it what the sidecar has not read yet.
sub finish {
    my ($self, $clock, $deadline) = @_;
    if ($self->{phase} == OPEN) {
        $self->{target}->is_tls ? $self->{sock}->stop_SSL(SSL_fast_shutdown => 1) : shutdown $self->{sock}, SHUT_WR;
        while ((my $left = $deadline - $clock->()) > 0 && $self->{phase} == OPEN && !$self->{target}->is_tls) {
            $self->watch(my ($readable, $writable) = ('', ''));
            select $readable, undef, undef, $left;
            $self->_read($clock->());
        }
    }
    return $self->_hang_up;
}

sub abandon { return $_[0]->_hang_up }

1;
