# The calls: what each puts on the wire, what is a programming error, and what a call leaves alone.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Sys::Hostname qw(hostname);
use Test::More;
use Time::HiRes qw(time);

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT|OTEL_)/ } keys %ENV };
my $sidecar = Sidecar->start;
my $sdk = MonitoringSDK->new(service => 'calls', url => $sidecar->url, spill_dir => tempdir(CLEANUP => 1));

my $before = int(time * 1e6);
$sdk->log_event('info', 'hello');
$sdk->log_event('error', "caf\x{e9} \x{20ac}", { rows => 3, file => 'a.csv', ratio => 0.5, none => undef, list => [ 1, 'x' ], sub => { k => 1 } });
$sdk->log_event('debug', '', {});
$sdk->log_metric('etch.depth', 1.5, 'nm', { tool => 'ETCH-07', slot => 3 });
$sdk->log_metric('n', '42');
$sdk->log_metric('wafers', 7, undef, undef, 'counter');
$sdk->log_metric('n', $_) for 9**9**9, -9**9**9, -sin(9**9**9);
$sdk->log_progress('job-1', 12.5);
$sdk->log_progress('job-1', 100, 'done');
$sdk->log_resource(1.5, 1000, undef, 0);
$sdk->log_resource;
ok $sdk->flush(60), 'all is acknowledged';
my $after = int(time * 1e6);

my ($hello) = $sidecar->hellos;
like delete $hello->{client}, qr/\A[0-9a-f]{16}\z/;
is_deeply $hello, { v => 2, type => 'hello', service => 'calls', host => hostname(), pid => $$, sdk => 'perl/2.0.0', ack => JSON::PP::true() }, 'hello';

my @messages = $sidecar->messages;
is_deeply [ map { delete $_->{seq} } @messages ], [ 1 .. 13 ], 'seq';
is scalar(grep { $_->{ts} < $before || $_->{ts} > $after || $_->{host} ne hostname() || $_->{pid} != $$ || $_->{service} ne 'calls' } @messages), 0, 'origin';
my $own = pop @messages;
delete @$_{qw(ts host pid service client)} for @messages;
is_deeply \@messages, [
    { type => 'event', level => 'info', message => 'hello' },
    { type => 'event', level => 'error', message => "caf\x{e9} \x{20ac}",
        context => { rows => 3, file => 'a.csv', ratio => 0.5, none => undef, list => [ 1, 'x' ], sub => { k => 1 } } },
    { type => 'event', level => 'debug', message => '', context => {} },
    { type => 'metric', name => 'etch.depth', value => 1.5, unit => 'nm', tags => { tool => 'ETCH-07', slot => 3 } },
    { type => 'metric', name => 'n', value => 42 },
    { type => 'metric', name => 'wafers', value => 7, kind => 'counter' },
    { type => 'metric', name => 'n', value => 'Infinity' },
    { type => 'metric', name => 'n', value => '-Infinity' },
    { type => 'metric', name => 'n', value => 'NaN' },
    { type => 'progress', job_id => 'job-1', percent => 12.5, status => 'running' },
    { type => 'progress', job_id => 'job-1', percent => 100, status => 'done' },
    { type => 'resource', cpu => 1.5, mem => 1000, net => 0 },
], 'the messages';
cmp_ok $own->{mem}, '>', 1_000_000, 'resident memory of the own process';
cmp_ok $own->{cpu}, '>=', 0;
ok !exists $own->{net}, 'no network count of a process';

# Programming errors are raised at the caller's line, and nothing is counted.
my @errors = (
    [ 'unknown level: loud',       sub { $sdk->log_event('loud', 'x') } ],
    [ 'unknown level: undef',      sub { $sdk->log_event(undef, 'x') } ],
    [ 'no message',                sub { $sdk->log_event('info') } ],
    [ 'context is not a hash',     sub { $sdk->log_event('info', 'x', [1]) } ],
    [ 'context is not a hash',     sub { $sdk->log_event('info', 'x', 'y') } ],
    [ 'empty name',                sub { $sdk->log_metric('', 1) } ],
    [ 'value is not a number: x',  sub { $sdk->log_metric('n', 'x') } ],
    [ 'value is not a number',     sub { $sdk->log_metric('n') } ],
    [ 'unknown kind',              sub { $sdk->log_metric('n', 1, undef, undef, 'sum') } ],
    [ 'tags is not a hash',        sub { $sdk->log_metric('n', 1, 'mm', 'x') } ],
    [ 'percent out of 0-100: 300', sub { $sdk->log_progress('j', 300) } ],
    [ 'percent out of 0-100',      sub { $sdk->log_progress('j', 'nan') } ],
    [ 'bad job id',                sub { $sdk->log_progress('two words', 1) } ],
    [ 'bad status',                sub { $sdk->log_progress('j', 1, '') } ],
    [ 'cpu is not a number',       sub { $sdk->log_resource('much') } ],
    [ 'bad trace id',              sub { $sdk->set_trace_id("caf\x{e9}") } ],
    [ 'bad trace id',              sub { $sdk->start_span('n', '') } ],
    [ 'empty name',                sub { $sdk->start_span } ],
    [ 'unknown span',              sub { $sdk->end_span('0123456789abcdef') } ],
    [ 'no service',                sub { MonitoringSDK->new } ],
    [ 'bad service: a b',          sub { MonitoringSDK->new(service => 'a b') } ],
    [ 'bad service: wafermon',     sub { MonitoringSDK->new(service => 'wafermon') } ],
    [ 'bad buffer: 0',             sub { MonitoringSDK->new(service => 's', buffer => 0) } ],
    [ 'bad coalesce: many',        sub { MonitoringSDK->new(service => 's', coalesce => 'many') } ],
    [ 'unknown option: sevrice',   sub { MonitoringSDK->new(sevrice => 's') } ],
);
my $called = $sdk->get_stats->{called};
for my $case (@errors) {
    my ($text, $call) = @$case;
    eval { $call->() };
    like $@, qr/\A\Q$text\E.* at \Q@{[__FILE__]}\E line/, $text;
}
is $sdk->get_stats->{called}, $called, 'none of them counted';

# Objects that are numbers.
use Math::BigFloat ();
$sdk->log_metric('big', Math::BigFloat->new('2.5'));
$sdk->log_resource(Math::BigFloat->new('12.5'));
ok $sdk->flush(60);
is_deeply [ map { $_->{value} // $_->{cpu} } ($sidecar->messages)[ -2, -1 ] ], [ 2.5, 12.5 ], 'objects that are numbers';

# What belongs to the caller.
$! = 2;
$@ = 'mine';
$? = 42;
my %context = (n => 12, s => 'x');
$sdk->log_event('info', 'x', \%context);
is $! + 0, 2, '$!';
is $@, 'mine', '$@';
is $?, 42, '$?';
$? = 0;
srand 1;
my $expected = rand;
srand 1;
MonitoringSDK->new(service => 's', url => $sidecar->url)->log_event('info', 'x');
is rand, $expected, 'the sequence of rand';

# After close, and disabled.
$sdk->close;
$sdk->log_event('info', 'late');
is $sdk->get_stats->{dropped}, 1, 'after close a call is counted as dropped';
{
    local $ENV{WAFERMON_DISABLED} = 'yes';
    my $silent = MonitoringSDK->new(service => 's', url => $sidecar->url);
    my $connections = $sidecar->hellos;
    $silent->log_event('info', 'x');
    ok !eval { $silent->log_event('loud', 'x'); 1 }, 'disabled, calls are checked';
    ok $silent->flush(60);
    is_deeply [ @{ $silent->get_stats }{qw(called dropped waiting state)} ], [ 1, 1, 0, 'disconnected' ], 'and counted';
}

# The environment.
{
    local @ENV{qw(WAFERMON_SERVICE WAFERMON_URL)} = ('from-env', 'http://nonsense');
    open my $stderr, '>&', \*STDERR;
    close STDERR;
    open STDERR, '>', \my $said;
    my $sdk = MonitoringSDK->new(spill_dir => tempdir(CLEANUP => 1));
    open STDERR, '>&', $stderr;
    is $said, "wafermon: bad url 'http://nonsense', using tcp://127.0.0.1:7411\n", 'a bad URL is said once';
}

done_testing;
