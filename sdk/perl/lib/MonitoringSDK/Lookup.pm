package MonitoringSDK::Lookup;

# Looks a host up in a process of its own, loaded only where the URL has a name: a resolver may take long, and nothing
# in Perl can end its wait. The program sees no more of that process than of one that `system` runs: the first child
# ends at once and is waited for here, the second is nobody's child.

use 5.014;
use warnings;
use Errno qw(EAGAIN EINTR);
use POSIX ();
use Socket qw(SOCK_STREAM);

# Seconds that a lookup may take, bytes of its answer read at once, and the descriptors to close where the kernel doesn't
# tell which are open.
use constant { LONGEST => 15, PORTION => 4096, DESCRIPTORS => 1024 };

# Begins for a stream that wants to connect; false where there can be no process.
sub begin {
    my ($stream, $now) = @_;
    my $reader = _start(@{ $stream->{target} }{qw(host port)}) or return 0;
    my $longest = $now + LONGEST - MonitoringSDK::Stream::SILENCE();
    @$stream{qw(sock phase heard in)} = ($reader, MonitoringSDK::Stream::LOOKING_UP(), $longest, '');
    return 1;
}

# Connects once all has been read.
sub go_on {
    my ($stream, $now) = @_;
    my $got = sysread $stream->{sock}, $stream->{in}, PORTION, length $stream->{in};
    return if $got || !defined $got && ($! == EAGAIN || $! == EINTR);
    my @found = map { [split] } split /\n/, $stream->{in};
    $stream->{target}{addresses} = [ map { { family => $_->[0], addr => pack 'H*', $_->[1] } } @found ];
    $stream->_connect($now);
}

# A handle that does not block and gives a line for each address, its family and itself in hexadecimal digits, and then
# the end.
sub _start {
    my ($host, $port) = @_;
    local ($?, $!);
    pipe my $reader, my $writer or return undef;
    my $pid = fork // return undef;
    if (!$pid) {
        my $second = fork;
        _look_up($writer, $host, $port) if defined $second && !$second;
        POSIX::_exit(0);
    }
    waitpid $pid, 0;
    $reader->blocking(0);
    return $reader;
}

# Holds nothing of the program's open: the other side of a pipe or a connection must see it close when it closes there.
sub _look_up {
    my ($writer, $host, $port) = @_;
    @SIG{qw(ALRM HUP INT PIPE TERM)} = ('DEFAULT') x 5;
    alarm LONGEST;
    my @open = (0 .. DESCRIPTORS);
    if (opendir my $folder, '/proc/self/fd') {
        @open = grep { /\A[0-9]+\z/ } readdir $folder;
    }
    for my $descriptor (@open) {
        POSIX::close($descriptor) if $descriptor != fileno $writer;
    }
    my (undef, @found) = MonitoringSDK::Stream::getaddrinfo($host, $port, { socktype => SOCK_STREAM });
    syswrite $writer, join '', map { $_->{family} . ' ' . unpack('H*', $_->{addr}) . "\n" } @found;
    POSIX::_exit(0);
}

1;
