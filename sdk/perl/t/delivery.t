# Delivery: a sidecar that is away, breaks off, refuses, rejects or hangs.

use strict;
use warnings;
use lib 'lib', 't';
use Fcntl qw(LOCK_EX LOCK_NB);
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Test::More;
use Time::HiRes qw(sleep time);

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };

sub new_sdk { return MonitoringSDK->new(service => 'delivery', spill_dir => tempdir(CLEANUP => 1), @_) }

sub law {
    my ($sdk, $name) = @_;
    my $s = $sdk->get_stats;
    return is $s->{called}, $s->{acked} + $s->{rejected} + $s->{dropped} + $s->{waiting} + $s->{handed_over}, "$name: conservation";
}

sub numbers { return map { $_->{context}{i} } grep { exists $_->{context}{i} } @_ }
sub burst   { my ($sdk, $from, $to, %more) = @_; $sdk->log_event('info', 'burst', { i => $_, %more }) for $from .. $to; return }
sub files   { my ($sdk) = @_; return sort glob "$sdk->{spill_dir}/*" }

sub content {
    return map { open my $file, '<', $_ or die; map { JSON::PP::decode_json($_) } readline $file } @_;
}

sub free_port {
    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
    return $socket->sockport;
}

# Each message has left the process when the call returns.
{
    my $sidecar = Sidecar->start;
    my $sdk = new_sdk(url => $sidecar->url);
    ok $sidecar->until(sub { $sdk->get_stats->{state} eq 'connected' }), 'connected';
    burst($sdk, 1, 100);
    is $sdk->get_stats->{sent}, 100, 'all sent';
    ok $sidecar->until(sub { $sidecar->messages == 100 }), 'all there, without another call';
    ok $sdk->flush(60);
    is_deeply [ numbers($sidecar->messages) ], [ 1 .. 100 ], 'in order';
    law($sdk, 'sent');
}

# A hot loop may hold back some, and still loses none.
{
    my $sidecar = Sidecar->start;
    my $sdk = new_sdk(url => $sidecar->url, coalesce => 50);
    $sidecar->until(sub { $sdk->get_stats->{state} eq 'connected' });
    $sdk->get_stats;
    $sdk->{look_at} = 9**9**9;    # no look at the clock in between
    burst($sdk, 1, 120);
    is $sdk->{count}{sent}, 100, 'two portions of fifty';
    undef $sdk;
    ok $sidecar->until(sub { $sidecar->messages == 120 }), 'the end of the object sends the rest';
}

# A sidecar that breaks off again and again: everything once.
{
    my $sidecar = Sidecar->start(behave => sub { $_[0] < 4 ? { close_after => 30, ack => $_[0] % 2 } : {} });
    my $sdk = new_sdk(url => $sidecar->url);
    for my $i (1 .. 200) {
        burst($sdk, $i, $i);
        sleep 0.002;
    }
    ok $sdk->flush(10), 'delivered in the end';
    my %last;
    my @once = grep { !$last{"$_->{client} $_->{seq}"}++ } $sidecar->messages;
    is_deeply [ sort { $a <=> $b } numbers(@once) ], [ 1 .. 200 ], 'each has one seq for ever';
    my $stats = $sdk->get_stats;
    is $stats->{reconnects}, 3;
    cmp_ok $stats->{resent}, '>', 0;
    law($sdk, 'broken off');
}

# Rejected messages.
{
    my $sidecar = Sidecar->start(behave => sub { { reject => { 1 => 'bad_message', 5 => 'bad_json', 6 => 'bad_json', 10 => 'bad_message' } } });
    my $sdk = new_sdk(url => $sidecar->url);
    burst($sdk, 1, 10);
    ok $sdk->flush(60);
    is_deeply [ @{ $sdk->get_stats }{qw(acked rejected waiting)} ], [ 6, 4, 0 ], 'settled either way';
    law($sdk, 'rejected');
}
{
    my $sidecar = Sidecar->start(behave => sub { { exact => 1, reject => { 2 => 'bad_message' } } });
    my $sdk = new_sdk(url => $sidecar->url);
    burst($sdk, 1, 2);
    ok $sdk->flush(60);
    is $sdk->{stream}{next}, 0, 'a rejected line without an ack is not outstanding, or the connection would count as dead';
}

# A refusal is said once, and nothing is lost.
{
    my $sidecar = Sidecar->start(behave => sub { $_[0] < 4 ? { refuse => 'unauthorized' } : {} });
    open my $stderr, '>&', \*STDERR;
    close STDERR;
    open STDERR, '>', \my $said;
    my $sdk = new_sdk(url => $sidecar->url, token => 'secret');
    burst($sdk, 1, 3);
    my $flushed = $sdk->flush(10);
    open STDERR, '>&', $stderr;
    ok $flushed, 'delivered when let in';
    is $said, 'wafermon: refused by ' . $sidecar->url . ": unauthorized: go away\n", 'said once';
    is +($sidecar->hellos)[0]{token}, 'secret';
}

# Nobody there: buffer, then spill, then all of it when the sidecar comes.
{
    my $port = free_port();
    my $sdk = new_sdk(url => "tcp://127.0.0.1:$port", buffer => 10);
    burst($sdk, 1, 60);
    my $stats = $sdk->get_stats;
    is_deeply [ @$stats{qw(state spilled waiting)} ], [ 'overflow', 50, 60 ];
    my ($file) = files($sdk);
    like $file, qr{/delivery\.$$\.[0-9a-f]{16}\.ldjson\z};
    is_deeply [ map { $_->{seq} } content($file) ], [ 1 .. 50 ], 'a stream of its own';
    open my $other, '<', $file or die;
    ok !flock($other, LOCK_EX | LOCK_NB), 'locked while its owner lives';
    my $sidecar = Sidecar->start(port => $port);
    {
        local ($/, $\, $,, $") = (undef, '!', '!', '!');    # a program's own ideas of lines and lists
        ok $sdk->flush(10), 'delivered';
    }
    is_deeply [ sort { $a <=> $b } numbers($sidecar->messages) ], [ 1 .. 60 ];
    is_deeply [ files($sdk) ], [], 'the file is gone';
    is $sdk->get_stats->{state}, 'connected';
    law($sdk, 'spilled');
}

# The sidecar is absent for the program's whole life.
{
    my $sdk = new_sdk(url => 'tcp://127.0.0.1:' . free_port(), buffer => 10);
    burst($sdk, 1, 30);
    my $begun = time;
    $sdk->close;
    cmp_ok time - $begun, '<', 1, 'close at once when disconnected';
    is_deeply [ @{ $sdk->get_stats }{qw(handed_over waiting)} ], [ 30, 0 ];
    my @left = files($sdk);
    is_deeply [ sort { $a <=> $b } numbers(content(@left)) ], [ 1 .. 30 ], 'all on disk';
    open my $file, '<', $left[0] or die;
    ok flock($file, LOCK_EX | LOCK_NB), 'nobody holds them';
    law($sdk, 'absent');
}

# No room for the spill: dropped, counted, reported.
{
    my $port = free_port();
    my $dir = tempdir(CLEANUP => 1) . '/file';
    open my $file, '>', $dir or die;
    my $sdk = new_sdk(url => "tcp://127.0.0.1:$port", buffer => 10, spill_dir => "$dir/below");
    burst($sdk, 1, 25);
    is $sdk->get_stats->{dropped}, 15;
    law($sdk, 'dropped');
    my $sidecar = Sidecar->start(port => $port);
    $sdk->flush(10);
    ok $sdk->flush(10);
    is_deeply [ map { @$_{qw(level message context)} } ($sidecar->messages)[-1] ],
        [ 'warning', '15 messages dropped', { kind => 'dropped', count => 15 } ], 'reported';
    law($sdk, 'reported');
}

# Accepts and says nothing: no call waits, close keeps to its budget, everything is on disk.
{
    my $sidecar = Sidecar->start(behave => sub { { welcome => 0 } });
    my $sdk = new_sdk(url => $sidecar->url);
    my $longest = 0;
    for my $i (1 .. 2_000) {
        my $begun = time;
        burst($sdk, $i, $i);
        $longest = time - $begun if time - $begun > $longest;
    }
    cmp_ok $longest, '<', 1, 'no call waits';
    my $begun = time;
    ok !$sdk->flush(0.2), 'flush gives up';
    ok !$sdk->flush(0);
    $sdk->close(0.3);
    cmp_ok time - $begun, '<', 1, 'close too';
    is_deeply [ sort { $a <=> $b } numbers(content(files($sdk))) ], [ 1 .. 2_000 ];
    law($sdk, 'silent');
}

# A program that ends by itself, also within milliseconds and with a status of its own.
{
    my $sidecar = Sidecar->start;
    local $ENV{WAFERMON_URL} = $sidecar->url;
    system $^X, '-Ilib', '-MMonitoringSDK', '-e',
        q{our $sdk = MonitoringSDK->new(service => 'short'); $sdk->log_event('info', 'x', { i => $_ }) for 1 .. 5; exit 3};
    is $? >> 8, 3, 'its status';
    is_deeply [ numbers($sidecar->messages) ], [ 1 .. 5 ], 'its messages';
}

# A fork: the child starts empty, and its end touches nothing of the parent's.
{
    my $sidecar = Sidecar->start;
    my $port = free_port();
    my $sdk = new_sdk(url => $sidecar->url);
    my $lost = new_sdk(url => "tcp://127.0.0.1:$port", buffer => 2);
    ok $sdk->flush(60);
    $sidecar->until(sub { $sdk->get_stats->{state} eq 'connected' });
    burst($sdk, 1, 10);
    burst($lost, 1, 10);
    my $silent = fork // die;
    exit 0 if !$silent;    # never calls
    waitpid $silent, 0;
    my $pid = fork // die;
    if (!$pid) {
        burst($sdk, 11, 20);
        exit($sdk->get_stats->{called} == 10 && $lost->get_stats->{called} == 0 ? 0 : 1);
    }
    waitpid $pid, 0;
    is $?, 0, 'stats start at zero';
    burst($sdk, 21, 30);
    ok $sdk->flush(60);
    is_deeply [ sort { $a <=> $b } numbers($sidecar->messages) ], [ 1 .. 10, 11 .. 20, 21 .. 30 ], 'each once';
    is scalar($sidecar->hellos), 2, 'two streams; the silent child opened none';
    is $sdk->get_stats->{reconnects}, 0, "the parent's connection lived on";
    open my $file, '<', (files($lost))[0] or die;
    ok !flock($file, LOCK_EX | LOCK_NB), 'so did its lock';
    is $lost->get_stats->{waiting}, 10;
}

# SIGKILL to the sidecar in mid-stream, and another one in its place.
{
    my $port = free_port();
    my $dir = tempdir(CLEANUP => 1);
    my $sidecar = Sidecar->start(port => $port, dir => $dir);
    my $sdk = new_sdk(url => "tcp://127.0.0.1:$port");
    burst($sdk, 1, 200);
    $sidecar->until(sub { $sidecar->messages > 50 }, $sdk);
    $sidecar->stop;
    burst($sdk, 201, 400);
    $sidecar = Sidecar->start(port => $port, dir => $dir);    # has forgotten its marks: what was not acknowledged comes again
    burst($sdk, 401, 500);
    ok $sdk->flush(10);
    my %seen;
    my @once = grep { !$seen{"$_->{client} $_->{seq}"}++ } $sidecar->messages;
    is_deeply [ sort { $a <=> $b } numbers(@once) ], [ 1 .. 500 ], 'none lost';
    law($sdk, 'killed');
}

# Signal handlers that log, in the middle of whatever call, and one that ends the program.
for my $round (1 .. 5) {
    my $sidecar = Sidecar->start;
    my $pid = fork // die;
    if (!$pid) {
        my $sdk = new_sdk(url => $sidecar->url, spill_dir => "$sidecar->{log}.spill");
        my ($calls, $ticks) = (0, 0);
        $SIG{ALRM} = sub { $sdk->log_event('info', 'tick', { i => -(++$ticks) }) };
        $SIG{TERM} = sub { Time::HiRes::setitimer(Time::HiRes::ITIMER_REAL(), 0); exit 0 };
        Time::HiRes::setitimer(Time::HiRes::ITIMER_REAL(), 0.0003, 0.0003);
        $sdk->log_event('info', 'call', { i => ++$calls }) while 1;
    }
    $sidecar->until(sub { -s $sidecar->{log} && -s _ > 50_000 * $round });
    kill TERM => $pid;
    waitpid $pid, 0;
    is $?, 0, 'ended by itself';
    my @all = ($sidecar->messages, content(glob "$sidecar->{log}.spill/*"));
    my %by_seq;
    $by_seq{"$_->{client} $_->{seq}"}{ $_->{context}{i} } = 1 for @all;
    is scalar(grep { keys %$_ > 1 } values %by_seq), 0, 'no seq for two messages';
    my @numbers = map { keys %$_ } values %by_seq;
    my @calls = sort { $a <=> $b } grep { $_ > 0 } @numbers;
    my @ticks = sort { $b <=> $a } grep { $_ < 0 } @numbers;
    # The very last call of each may have been cut off by the exit.
    cmp_ok scalar(@ticks), '>', 10, 'the handler logged';
    ok $calls[-1] - @calls <= 1 && -$ticks[-1] - @ticks <= 1, 'none lost' or diag "$calls[-1] of @{[scalar @calls]}, $ticks[-1] of @{[scalar @ticks]}";
}

# A Unix socket.
{
    my $path = tempdir(CLEANUP => 1) . '/sock';
    my $sidecar = Sidecar->start(path => $path);
    my $sdk = new_sdk(url => "unix://$path");
    burst($sdk, 1, 50);
    ok $sdk->flush(60);
    is_deeply [ numbers($sidecar->messages) ], [ 1 .. 50 ], 'over a Unix socket';
}

done_testing;
