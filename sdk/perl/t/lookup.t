# Names: looked up at each attempt to connect, by a process that the program does not notice.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use POSIX ();
use Sidecar ();
use Socket ();
use Test::More;
use Time::HiRes qw(sleep time);

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };
my $dir     = tempdir(CLEANUP => 1);
my $lookups = "$dir/lookups";
my $sidecar = Sidecar->start;
my $port    = $sidecar->port;

# A resolver that knows the name while $known, takes $slow seconds, and writes down that it was asked. Addresses are none
# of its business.
my ($known, $slow) = (0, 0);
my $real = \&Socket::getaddrinfo;
{
    no warnings 'redefine';
    *MonitoringSDK::Stream::getaddrinfo = sub {
        my ($host, undef, $hints) = @_;
        return $real->(@_) if $host ne 'sidecar.test';
        return Socket::EAI_NONAME() if $hints->{flags};
        open my $file, '>>', $lookups or die;
        syswrite $file, "x\n";
        sleep $slow;
        return $known ? $real->('127.0.0.1', $port, $hints) : Socket::EAI_AGAIN();
    };
}
sub new_sdk { return MonitoringSDK->new(service => 'lookup', url => "tcp://sidecar.test:$port", spill_dir => $dir, @_) }

# Unknown at first, as at boot before the network; found later without flush.
{
    my $sdk = new_sdk();
    $sdk->log_event(info => 'early');
    ok $sidecar->until(sub { $sdk->get_stats; -s $lookups > 4 }), 'looked up again';
    is $sdk->get_stats->{state}, 'disconnected';
    $known = 1;
    ok $sidecar->until(sub { $sdk->log_event(info => 'x'); $sdk->get_stats->{state} eq 'connected' }), 'found in the end';
    ok $sdk->flush(60);
    cmp_ok +(-s $lookups) / 2, '<', 20, 'once an attempt, after pauses that grow';
}

# A resolver that takes long takes no caller's time.
{
    ($slow, my $begun) = (4, time);
    my $sdk = new_sdk();
    $sdk->log_event(info => 'x') for 1 .. 10;
    ok !$sdk->flush(0.5), 'not yet';
    cmp_ok time - $begun, '<', 3, 'no call waits for the resolver';
    ok $sdk->flush(20), 'delivered when it has answered';
    $slow = 0;
}

# What else the program does with processes.
{
    ($slow, $known) = (30, 0);
    $? = 7;
    pipe my $reader, my $writer or die;
    my $sdk = new_sdk();
    is $?, 7, '$? is left alone';
    close $writer;
    my $readable = '';
    vec($readable, fileno $reader, 1) = 1;
    ok select($readable, undef, undef, 10), 'the resolver holds none of its descriptors';
    is sysread($reader, my $buffer, 1), 0, 'so this is the end';
    my $child = fork // die;
    POSIX::_exit(3) if !$child;
    is wait, $child, 'the resolver is no child that wait could give';
    is $? >> 8, 3;
}

# Without the companion the call waits, and it works all the same.
{
    delete local $INC{'MonitoringSDK/Lookup.pm'};
    local @INC = sub { die if $_[1] eq 'MonitoringSDK/Lookup.pm' };
    ($slow, $known) = (0, 1);
    my $sdk = new_sdk();
    $sdk->log_event(info => 'x');
    ok $sdk->flush(60), 'one file is enough';
}

done_testing;
