package MonitoringSDK::TLS;

# A stream over TLS, loaded for a tls:// URL only, because IO::Socket::SSL is not a core module. Promises what
# MonitoringSDK::Stream does.

use 5.014;
use warnings;
use Errno qw(EAGAIN);
use IO::Socket::SSL ();
use MonitoringSDK ();

our @ISA = qw(MonitoringSDK::Stream);

# The connection is there: the handshake, as far as it goes without waiting, and then the hello. Neither a file that
# can't be read nor a certificate that doesn't fit gets better by itself, so the reason is said.
sub _greet {
    my ($self, $now) = @_;
    my $sock = $self->{sock};
    if (!$sock->isa('IO::Socket::SSL')) {
        my $host    = $self->{target}{host};
        my @options = (SSL_startHandshake => 0, SSL_hostname => $host, SSL_verifycn_name => $host,
            SSL_verifycn_scheme => 'http');
        my %file  = (CA => 'SSL_ca_file', CERT => 'SSL_cert_file', KEY => 'SSL_key_file');
        my @given = grep { length($ENV{"WAFERMON_TLS_$_"} // '') } keys %file;
        push @options, map { $file{$_} => $ENV{"WAFERMON_TLS_$_"} } @given;
        local ($@, $SIG{__DIE__});    # it dies of a file that it can't use
        eval { IO::Socket::SSL->start_SSL($sock, @options) }
            or return $self->_lose($now, 'tls', $@ =~ s/ at \S+ line \d+\.\n\z//r || $IO::Socket::SSL::SSL_ERROR);
    }
    return $self->SUPER::_greet($now) if $sock->connect_SSL;
    $self->_lose($now, 'tls', $IO::Socket::SSL::SSL_ERROR) if $! != EAGAIN;
}

# OpenSSL knows no MSG_NOSIGNAL.
sub _send {
    my ($self) = @_;
    local $SIG{PIPE} = 'IGNORE';
    return syswrite $self->{sock}, $self->{out};
}

# Says goodbye to the peer, without waiting for its answer.
sub finish {
    my ($self) = @_;
    $self->{sock}->stop_SSL(SSL_fast_shutdown => 1) if $self->is_open;
}

1;
