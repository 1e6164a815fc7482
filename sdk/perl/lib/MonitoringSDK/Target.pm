package MonitoringSDK::Target;

# Where the sidecar is: a URL, and the socket addresses it stands for.

use 5.014;
use warnings;
use Socket qw(AF_UNIX SOCK_STREAM getaddrinfo pack_sockaddr_un);

use constant DEFAULT => 'tcp://127.0.0.1:7411';

sub new { my ($class, $url) = @_;
    my $place = _parse($url);
    if (!$place) {
        my $hint = $url =~ m{\Atls://} ? ' (tls:// needs IO::Socket::SSL)' : '';
        print STDERR "wafermon: bad url '$url'$hint, using @{[DEFAULT]}\n";
        $place = _parse($url = DEFAULT);
    }
    my $self = bless { url => $url, refused => 0, %$place }, $class;
    $self->resolve;
    return $self;
}

sub _parse { my ($url) = @_;
    if ($url =~ m{\Aunix://(/.+)\z}s && length $1 < 108) {
        return { addresses => [ { family => AF_UNIX, addr => pack_sockaddr_un($1) } ] };
    }
    my ($scheme, $ipv6, $name, $port) =
        $url =~ m{\A(tcp|tls)://(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?\z} or return;
    local $@;
    return if $port < 1 || $port > 65535 || $scheme eq 'tls' && !eval { require IO::Socket::SSL };
    return { tls => $scheme eq 'tls', host => $ipv6 // $name, port => $port, addresses => [] };
}

# Looking up a name may block, so it is done when the SDK is opened and again only in flush, where waiting is allowed,
# if it found nothing.
sub resolve { my ($self) = @_;
    return if @{ $self->{addresses} };
    my ($error, @found) = getaddrinfo($self->{host}, $self->{port}, { socktype => SOCK_STREAM });
    $self->{addresses} = \@found;
}

# One line on stderr for the SDK's whole life, however often it is refused.
sub say_refused { my ($self, $code, $detail) = @_;
    return if $self->{refused}++;
    my $text = join ': ', grep { defined && length } $code, $detail;
    print STDERR "wafermon: refused by $self->{url}: ", $text =~ s/[^\x20-\x7e]/?/gr, "\n";
}

1;
