# The appender for Log4perl, where that is there.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Test::More;

plan skip_all => 'Log::Log4perl is not installed' if !eval { require Log::Log4perl; require Log::Log4perl::Layout::NoopLayout };

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };
my $sidecar = Sidecar->start;
my $url     = $sidecar->url;
my $spill   = tempdir(CLEANUP => 1);

# By configuration, with an SDK of its own.
Log::Log4perl->init(\<<"CONFIG");
log4perl.rootLogger                    = DEBUG, Wafermon
log4perl.appender.Wafermon             = Log::Log4perl::Appender::Wafermon
log4perl.appender.Wafermon.service     = log4perl
log4perl.appender.Wafermon.url         = $url
log4perl.appender.Wafermon.spill_dir   = $spill
log4perl.appender.Wafermon.Threshold   = DEBUG
log4perl.appender.Wafermon.layout      = Log::Log4perl::Layout::PatternLayout
log4perl.appender.Wafermon.layout.ConversionPattern = <%m>%n
CONFIG
my $log = Log::Log4perl->get_logger('Fab::Receiver');
$log->trace('too fine');
$log->debug('d');
Log::Log4perl::MDC->put(lot => 'L-7');
$log->warn('two ', 'parts');
Log::Log4perl::MDC->remove;
$log->fatal("caf\x{e9} \x{20ac}");
undef $log;
{
    local $SIG{__WARN__} = sub { };    # no appenders, it says
    Log::Log4perl->init(\'log4perl.rootLogger = OFF');    # closes the appender, and with it the SDK
}
ok $sidecar->until(sub { $sidecar->messages >= 3 }), 'all there';
is_deeply [ map { [ @$_{qw(service level message context)} ] } $sidecar->messages ], [
    [ 'log4perl', 'debug',    '<d>',           { category => 'Fab.Receiver' } ],
    [ 'log4perl', 'warning',  '<two parts>',   { category => 'Fab.Receiver', lot => 'L-7' } ],
    [ 'log4perl', 'critical', "<caf\x{e9} \x{20ac}>",   { category => 'Fab.Receiver' } ],
], 'levels, layout, category and MDC';

# Into an SDK that the program has, with its trace, and with hashes as context.
my $sdk = MonitoringSDK->new(service => 'shared', url => $url, spill_dir => $spill, trace_id => 'job-1');
my $appender = Log::Log4perl::Appender->new('Log::Log4perl::Appender::Wafermon', name => 'shared', sdk => $sdk, warp_message => 0);
$appender->layout(Log::Log4perl::Layout::NoopLayout->new);
my $logger = Log::Log4perl->get_logger('');
$logger->level('INFO');
$logger->add_appender($appender);
Log::Log4perl->get_logger('Fab')->info('received', { rows => 3 });
ok $sdk->flush(60);
my $last = ($sidecar->messages)[-1];
is_deeply [ @$last{qw(service level message context trace_id)} ],
    [ 'shared', 'info', 'received', { category => 'Fab', rows => 3 }, 'job-1' ], 'an SDK of the program';

done_testing;
