#!/usr/bin/env perl
# What one call costs, beside Log4perl writing the same to a file, in one run.
#
#   perl bench.pl [ROUNDS]
#
# Each round times 2,000 calls one by one for every contender in turn, so that a busy machine hits all alike; the medians of
# the rounds' p50 and p99 are shown, and the p99.9 of all calls. The sidecar is a forked process that reads and
# acknowledges in groups, as one does that syncs a disk before; `hung` accepts and never reads; `away` is a port where
# nobody listens.

use strict;
use warnings;
use FindBin ();
use lib "$FindBin::Bin/lib";
use File::Temp qw(tempdir);
use IO::Select ();
use IO::Socket::INET ();
use MonitoringSDK ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use constant { CALLS => 2_000, WELCOME => qq({"v":2,"type":"welcome","sidecar":"bench","acked":0,"max_line":65536}\n) };

my $rounds = shift || 15;
my $dir    = tempdir(CLEANUP => 1);

my ($port, $sidecar)      = sidecar(1);
my ($deaf_port, $deaf)    = sidecar(0);
my @common = (service => 'bench', spill_dir => $dir);
my %sdk = (
    up         => MonitoringSDK->new(@common, url => "tcp://127.0.0.1:$port"),
    coalescing => MonitoringSDK->new(@common, url => "tcp://127.0.0.1:$port", coalesce => 256),
    hung       => MonitoringSDK->new(@common, url => "tcp://127.0.0.1:$deaf_port"),
    away       => MonitoringSDK->new(@common, url => 'tcp://127.0.0.1:1'),
);
$sdk{$_}->flush for qw(up coalescing);

my %contender = map { my $sdk = $sdk{$_}; $_ => sub { $sdk->log_event('info', 'file received', $_[0]) } } keys %sdk;
if (eval { require Log::Log4perl; 1 }) {
    Log::Log4perl->init(\<<"CONFIG");
log4perl.rootLogger=INFO, File
log4perl.appender.File=Log::Log4perl::Appender::File
log4perl.appender.File.filename=$dir/log4perl.log
log4perl.appender.File.layout=PatternLayout
log4perl.appender.File.layout.ConversionPattern=%d %p %c %P - %m%n
CONFIG
    my $logger = Log::Log4perl->get_logger('bench');
    $contender{log4perl} = sub {
        my ($c) = @_;
        $logger->info("file received file=$c->{file} rows=$c->{rows} tool=$c->{tool} seconds=$c->{seconds}");
    };
}

my (%p50, %p99, %all);
for my $round (0 .. $rounds) {
    for my $name (sort keys %contender) {
        $sdk{$name}->flush if $name =~ /up|coalescing/;
        my $times = measure($contender{$name});
        next if !$round;    # warms up
        push @{ $p50{$name} }, percentile($times, 0.5);
        push @{ $p99{$name} }, percentile($times, 0.99);
        push @{ $all{$name} }, @$times;
    }
}

printf "%-12s %8s %8s %8s   %s\n", qw(us p50 p99 p99.9 p50/log4perl);
my $reference = $p50{log4perl} && median($p50{log4perl});
for my $name (qw(log4perl up coalescing hung away)) {
    next if !$p50{$name};
    my $p50 = median($p50{$name});
    printf "%-12s %8.1f %8.1f %8.1f   %s\n", $name, $p50, median($p99{$name}), percentile($all{$name}, 0.999),
        $reference ? sprintf '%.2f', $p50 / $reference : '-';
}
$_->close(0) for values %sdk;
kill KILL => $sidecar, $deaf;

sub measure {
    my ($call) = @_;
    my @times;
    for my $i (1 .. CALLS) {
        my %context = (file => "lot_4711_$i.csv", rows => $i, tool => 'ETCH-07', seconds => $i / 8);
        my $before = clock_gettime(CLOCK_MONOTONIC);
        $call->(\%context);
        push @times, 1e6 * (clock_gettime(CLOCK_MONOTONIC) - $before);
    }
    return \@times;
}

sub percentile { my ($values, $part) = @_; return (sort { $a <=> $b } @$values)[ $part * $#$values ] }
sub median     { return percentile($_[0], 0.5) }

sub sidecar {
    my ($reads) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16) or die "can't listen: $!\n";
    my $pid = fork;
    die "fork: $!\n" if !defined $pid;
    return ($listener->sockport, $pid) if $pid;
    my $select = IO::Select->new($listener);
    my %rest;
    while (1) {
        sleep 0.002;    # a disk's sync
        for my $ready ($select->can_read) {
            if ($ready == $listener) {
                my $new = $listener->accept;
                if ($reads) { $select->add($new) }
                else        { sysread $new, my $hello, 4096; syswrite $new, WELCOME; $rest{$new} = $new }
                next;
            }
            my $got = sysread $ready, $rest{$ready}, 1 << 18, length($rest{$ready} // '');
            if (!$got) { $select->remove($ready); close $ready; next }
            my $end = rindex $rest{$ready}, "\n";
            next if $end < 0;
            my $lines = substr $rest{$ready}, 0, $end + 1, '';
            my ($seq) = $lines =~ /"seq":([0-9]+)\}\n\z/;
            syswrite $ready, $seq ? qq({"type":"ack","seq":$seq}\n) : WELCOME;
        }
    }
}
