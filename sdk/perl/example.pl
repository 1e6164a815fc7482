#!/usr/bin/env perl
# Reads files and tells the sidecar about it: perl example.pl FILE...
#
# The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.

use strict;
use warnings;
use FindBin ();
use lib "$FindBin::Bin/lib";    # not needed where MonitoringSDK is installed
use MonitoringSDK ();

my @names = @ARGV ? @ARGV : ($0);
my $sdk = MonitoringSDK->new(service => 'example', trace_id => 'job-4711');

for my $number (1 .. @names) {
    my $name = $names[ $number - 1 ];
    my $span = $sdk->span('read', undef, { file => $name });    # ends with this round of the loop
    if (open my $file, '<:raw', $name) {
        my @lines = readline $file;
        $sdk->log_event(info => 'read', { file => $name, lines => scalar @lines });
        $sdk->log_metric(bytes_read => length join('', @lines), 'By', { file => $name });
    }
    else {
        $sdk->log_event(error => 'unreadable', { file => $name, reason => "$!" });
        $span->end('error');
    }
    $sdk->log_progress('job-4711', 100 * $number / @names);
}
$sdk->log_resource;
$sdk->log_progress('job-4711', 100, 'done');

my $delivered = $sdk->flush;
printf "%d messages, %s\n", $sdk->get_stats->{called}, $delivered ? 'all acknowledged' : 'left for the sidecar';
