# What programs do to themselves: fork, taint checks, threads, time-outs by a signal handler that dies.

use strict;
use warnings;
use Config;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use IO::Socket::INET ();
use MonitoringSDK ();
use POSIX ();
use Sidecar ();
use Test::More;
use Time::HiRes qw(ualarm);

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };

sub new_sdk { return MonitoringSDK->new(service => 'processes', spill_dir => tempdir(CLEANUP => 1), @_) }

sub law {
    my ($sdk) = @_;
    my $s = $sdk->get_stats;
    return $s->{called} == $s->{acked} + $s->{rejected} + $s->{dropped} + $s->{waiting} + $s->{handed_over};
}

sub closed_port {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
    return $socket->sockport;
}

# The kernel has the first messages of a process when their calls return: it may end at once.
{
    my $sidecar = Sidecar->start;
    for (1 .. 5) {
        my $parent = fork // die;
        if (!$parent) {
            my $sdk = new_sdk(url => $sidecar->url);
            $sdk->log_event(info => 'parent');
            my $child = fork // die;
            if (!$child) {
                $sdk->log_event(info => 'child', { k => $_ }) for 1 .. 5;
                POSIX::_exit(0);
            }
            waitpid $child, 0;
            POSIX::_exit(0);
        }
        waitpid $parent, 0;
    }
    ok $sidecar->until(sub { $sidecar->messages >= 30 }), 'all are there, though nobody flushed' or diag scalar(my @m = $sidecar->messages);
}

# A time-out out of the middle of a call, again and again: no message is counted twice, or not at all.
for my $case ([ 'delivered', {} ], [ 'spilled', { buffer => 5 } ]) {
    my ($name, $options) = @$case;
    my $sidecar = Sidecar->start;
    my $sdk     = new_sdk(url => $name eq 'spilled' ? 'tcp://127.0.0.1:' . closed_port() : $sidecar->url, %$options);
    my ($begun, $done) = (0, 0);
    for my $round (1 .. 150) {
        eval {
            local $SIG{ALRM} = sub { die "timeout\n" };
            ualarm 800 + 37 * $round;
            while (1) {
                $begun++;
                $sdk->log_event(info => 'x', { n => $begun });
                $done++;
            }
        };
        ualarm 0;
    }
    ok law($sdk), "$name: the stats add up";
    my $called = $sdk->get_stats->{called};
    ok $done <= $called && $called <= $begun, "$name: $done <= $called <= $begun";
    $sdk->flush(30) if $name eq 'delivered';
    $sdk->close;
    my @files = glob "$sdk->{spill_dir}/*";
    my @lines = map { open my $file, '<', $_ or die; readline $file } @files;
    my @left  = grep { $_->{type} eq 'event' } map { JSON::PP::decode_json($_) } @lines;
    my (%seqs, %numbers);
    for my $message ($name eq 'delivered' ? $sidecar->messages : (), @left) {
        $seqs{"$message->{client} $message->{seq}"}{ $message->{context}{n} } = 1;
        $numbers{ $message->{context}{n} } = 1;
    }
    is scalar(grep { keys %$_ > 1 } values %seqs), 0, "$name: no seq for two messages";
    is scalar(keys %numbers), $called, "$name: as many messages as the stats say";
    ok law($sdk), "$name: also after close";
}

# Taint checks: no call dies of them, and everything is on disk.
{
    my $dir = tempdir(CLEANUP => 1);
    local $ENV{WAFERMON_SPILL_DIR} = $dir;
    local $ENV{WAFERMON_SERVICE}   = 'tainted';
    local $ENV{WAFERMON_URL}       = 'tcp://127.0.0.1:' . closed_port();
    system $^X, '-T', '-Ilib', '-MMonitoringSDK', '-e',
        'my $sdk = MonitoringSDK->new(buffer => 2); $sdk->set_trace_id($ENV{WAFERMON_SERVICE}); $sdk->log_event(info => "m$_") for 1 .. 10';
    is $?, 0, 'alive under -T';
    my @lines = map { open my $file, '<', $_ or die; readline $file } glob "$dir/tainted.*";
    is scalar(grep { /"type":"event"/ } @lines), 10, 'nothing is lost';
}

# Threads: a copy of an object begins anew.
SKIP: {
    skip 'this Perl has no threads', 3 if !$Config{useithreads};
    my $sidecar = Sidecar->start;
    local $ENV{WAFERMON_URL} = $sidecar->url;
    my $code = <<'CODE';
my $sdk = MonitoringSDK->new(service => 'threads');
my $span = $sdk->span('main');
$sdk->log_event(info => 'main', { n => $_ }) for 1 .. 10;
my @threads = map { my $t = $_; threads->create(sub { $sdk->log_event(info => 'thread', { t => $t, n => $_ }) for 1 .. 10; $sdk->get_stats->{called} }) } 1 .. 3;
my $silent = threads->create(sub { 10 });
print join ' ', map { $_->join } @threads, $silent;
$sdk->log_event(info => 'main', { n => $_ }) for 11 .. 20;
undef $span;
$sdk->flush or die;
CODE
    my $program = File::Temp->new;
    print {$program} $code;
    close $program;
    is qx{$^X -Ilib -Mthreads -MMonitoringSDK $program}, '10 10 10 10', 'each thread has stats of its own';
    my %count;
    $count{"$_->{type} " . ($_->{message} // $_->{name})}{"$_->{client} $_->{seq}"}++ for $sidecar->messages;
    is_deeply { map { $_ => scalar keys %{ $count{$_} } } keys %count },
        { 'event main' => 20, 'event thread' => 30, 'span_start main' => 1, 'span_end main' => 1 }, 'each message once';
    is scalar($sidecar->hellos), 4, 'a thread that never calls opens nothing';
}

done_testing;
