# The Log::Any adapter, where Log::Any is there.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Test::More;

plan skip_all => 'Log::Any is not installed' if !eval { require Log::Any; require Log::Any::Adapter };

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };
my $sidecar = Sidecar->start;
my $sdk = MonitoringSDK->new(service => 'log-any', url => $sidecar->url, spill_dir => tempdir(CLEANUP => 1));
Log::Any::Adapter->set('Wafermon', sdk => $sdk, log_level => 'debug');

my $log = Log::Any->get_logger(category => 'Fab::Receiver');
$log->trace('too fine');
$log->debug('d');
$log->notice('received', { rows => 3 });
$log->warnf('%s of %d', 'two', 3);
$log->emergency('e');
ok $log->is_debug && !$log->is_trace, 'levels are known';
Log::Any->get_logger(category => 'Filtered', filter => sub { "<$_[2]>" })->error('text');
ok $sdk->flush(60);

is_deeply [ map { [ @$_{qw(level message context)} ] } $sidecar->messages ], [
    [ 'debug',    'd',          { category => 'Fab::Receiver' } ],
    [ 'info',     'received',   { category => 'Fab::Receiver', rows => 3 } ],
    [ 'warning',  'two of 3',   { category => 'Fab::Receiver' } ],
    [ 'critical', 'e',          { category => 'Fab::Receiver' } ],
    [ 'error',    '<text>',     { category => 'Filtered' } ],
];

Log::Any::Adapter->set('Wafermon', service => 'own', url => $sidecar->url);
$log->error('from its own SDK');
Log::Any::Adapter->set('Null');
undef $log;
is +($sidecar->hellos)[-1]{service}, 'own', 'an adapter may open its own';

done_testing;
