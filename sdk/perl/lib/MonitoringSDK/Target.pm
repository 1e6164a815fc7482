package MonitoringSDK::Target;

# Where the sidecar is: a URL, and the socket addresses it stands for.

use strict;
use warnings;
use Socket qw(AF_UNIX SOCK_STREAM getaddrinfo pack_sockaddr_un);

use constant DEFAULT => 'tcp://127.0.0.1:7411';

sub new {
    my ($class, $url) = @_;
    my $self = bless { url => $url, addresses => [] }, $class;
    if (!$self->_parse($url)) {
        print STDERR "wafermon: bad url '$url', using @{[DEFAULT]}\n";
        $self->{url} = DEFAULT;
        $self->_parse(DEFAULT);
    }
    $self->resolve;
    return $self;
}

sub _parse {
    my ($self, $url) = @_;
    if ($url =~ m{\Aunix://(/.+)\z}s && length $1 < 108) {
        @$self{qw(scheme path)} = ('unix', $1);
    }
    elsif ($url =~ m{\A(tcp|tls)://(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?\z} && $4 >= 1 && $4 <= 65535) {
        @$self{qw(scheme host port)} = ($1, defined $2 ? $2 : $3, $4);
    }
    else {
        return 0;
    }
    return $self->{scheme} ne 'tls' || eval { require IO::Socket::SSL };
}

# Looking up a name may block, so it is done when the SDK is opened and again only in flush and close, where waiting is
# allowed, if it found nothing.
sub resolve {
    my ($self) = @_;
    return if @{ $self->{addresses} };
    if ($self->{scheme} eq 'unix') {
        $self->{addresses} = [ { family => AF_UNIX, addr => pack_sockaddr_un($self->{path}) } ];
        return;
    }
    my ($error, @found) = getaddrinfo($self->{host}, $self->{port}, { socktype => SOCK_STREAM });
    $self->{addresses} = \@found if !$error;
    return;
}

sub addresses { return @{ $_[0]{addresses} } }
sub is_tls    { return $_[0]{scheme} eq 'tls' }
sub is_unix   { return $_[0]{scheme} eq 'unix' }

# One line on stderr for the SDK's whole life, however often it is refused.
sub say_refused {
    my ($self, $code, $detail) = @_;
    return if $self->{refused}++;
    my $text = join ': ', grep { defined && length } $code, $detail;
    $text =~ s/[^\x20-\x7e]/?/g;
    print STDERR "wafermon: refused by $self->{url}: $text\n";
    return;
}

1;
