# Spans: nesting, guards that end while an exception passes, the environment of children, forks.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Test::More;

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };
my $sidecar = Sidecar->start;
my @options = (service => 'spans', url => $sidecar->url, spill_dir => tempdir(CLEANUP => 1));

my $seen = 0;

sub new_messages {
    my ($sdk) = @_;
    ok $sdk->flush(60), 'acknowledged';
    my @all = $sidecar->messages;
    my @new = @all[ $seen .. $#all ];
    $seen = @all;
    return @new;
}

my $sdk = MonitoringSDK->new(@options, trace_id => 'job-1');
is $ENV{WAFERMON_TRACE_ID}, 'job-1', 'the trace is exported';
ok !exists $ENV{WAFERMON_SPAN_ID};

my $outer = $sdk->start_span('outer', undef, { a => 1 });
is $ENV{WAFERMON_SPAN_ID}, $outer, 'the span too';
my $inner = $sdk->start_span('inner');
$sdk->log_event('info', 'in inner');
$sdk->end_span($outer, 'error', { b => 2 });    # out of order
$sdk->log_event('info', 'still in inner');
$sdk->end_span($inner);
$sdk->log_event('info', 'outside');
ok !exists $ENV{WAFERMON_SPAN_ID}, 'no span, no export';
ok !eval { $sdk->end_span($inner); 1 }, 'a span ends once';
like $@, qr/\Aunknown span: $inner at \S+spans\.t/;

my @m = new_messages($sdk);
is_deeply [ map { $_->{type} } @m ], [qw(span_start span_start event span_end event span_end event)];
is_deeply [ map { $_->{span_id} } @m ], [ $outer, $inner, $inner, $outer, $inner, $inner, undef ];
is_deeply [ map { $_->{trace_id} } @m ], [ ('job-1') x 7 ];
is $m[1]{parent_id}, $outer;
is_deeply [ @{ $m[3] }{qw(name status start tags parent_id)} ], [ 'outer', 'error', $m[0]{ts}, { a => 1, b => 2 }, undef ], 'span_end is self-contained';
like $m[3]{duration}, qr/\A[0-9]+\z/;
is_deeply [ @{ $m[5] }{qw(name status parent_id tags)} ], [ 'inner', 'ok', $outer, undef ];

# Guards.
{
    my $guard = $sdk->span('guarded');
    is $guard->id, $ENV{WAFERMON_SPAN_ID};
}
eval {
    my $guard = $sdk->span('dies');
    my $nested = $sdk->span('nested');
    sub { die "boom\n" }->();
};
is $@, "boom\n", 'the exception passes';
eval { my $guard = $sdk->span('dies with an object'); die { code => 7 } };
is $@->{code}, 7;
{
    my $guard = $sdk->span('after');    # what $@ still holds is not of this scope
}
{
    my $guard = $sdk->span('by hand');
    $guard->end('error', { why => 'x' });
    $guard->end;
}
@m = grep { $_->{type} eq 'span_end' } new_messages($sdk);
is_deeply [ map { "$_->{name} $_->{status}" } @m ],
    [ 'guarded ok', 'nested error', 'dies error', 'dies with an object error', 'after ok', 'by hand error' ], 'each ended once';

# A program that dies inside a span.
my $code = q{my $sdk = MonitoringSDK->new(service => "dying"); my $guard = $sdk->span("fatal"); die "end\n"};
{
    local $ENV{WAFERMON_URL} = $sidecar->url;
    my $said = qx{$^X -Ilib -MMonitoringSDK -e '$code' 2>&1};
    is $said, "end\n", 'it says why';
    isnt $?, 0, 'and its status is kept';
}
@m = new_messages($sdk);
is_deeply [ map { "$_->{type} $_->{status}" } $m[-1] ], ['span_end error'], 'an uncaught exception ends the span with an error';
is $m[-1]{trace_id}, 'job-1', 'the child process is in the trace';

# A child process under the span of its parent.
{
    my $guard = $sdk->span('parent');
    local $ENV{WAFERMON_URL} = $sidecar->url;
    system $^X, '-Ilib', '-MMonitoringSDK', '-e',
        q{my $sdk = MonitoringSDK->new(service => 'child'); my $s = $sdk->span('work'); $sdk->log_event('info', 'hello')};
    $sdk->flush;
    my ($start) = grep { $_->{type} eq 'span_start' && $_->{name} eq 'work' } $sidecar->messages;
    is_deeply [ @$start{qw(trace_id parent_id service)} ], [ 'job-1', $guard->id, 'child' ], 'right trace, right span';
}
new_messages($sdk);

# A fork inside a span.
my $span = $sdk->span('forking');
my $id = $span->id;
my $pid = fork // die;
if (!$pid) {
    $sdk->log_event('info', 'in the child');
    undef $span;    # the parent's
    my $own = $sdk->start_span('own');
    $sdk->end_span($own);
    exit 0;
}
waitpid $pid, 0;
is $?, 0;
undef $span;
@m = new_messages($sdk);
my @child = grep { $_->{pid} == $pid } @m;
is_deeply [ map { $_->{type} } @child ], [qw(event span_start span_end)], "the parent's span is not ended by the child";
is $child[0]{span_id}, $id;
is_deeply [ map { $_->{seq} } @child ], [ 1, 2, 3 ], 'a stream of its own';
isnt $child[0]{client}, $m[0]{client};
is scalar(grep { $_->{type} eq 'span_end' && $_->{pid} == $$ } @m), 1, 'the parent ends it';

# Traces.
my $free = MonitoringSDK->new(service => 'spans', url => $sidecar->url);
is $ENV{WAFERMON_TRACE_ID}, 'job-1';
delete @ENV{qw(WAFERMON_TRACE_ID WAFERMON_SPAN_ID TRACEPARENT)};
$free = MonitoringSDK->new(service => 'spans', url => $sidecar->url);
{
    my $made = $free->span('made');
    like $ENV{WAFERMON_TRACE_ID}, qr/\A[0-9a-f]{32}\z/, 'a span without a trace makes one';
}
ok !exists $ENV{WAFERMON_TRACE_ID}, 'which ends with it';
$free->set_trace_id('job-2');
is $ENV{WAFERMON_TRACE_ID}, 'job-2';
{
    my $other = $free->span('other', 'job-3');
    is $ENV{WAFERMON_TRACE_ID}, 'job-3';
}
is $ENV{WAFERMON_TRACE_ID}, 'job-2';
delete @ENV{qw(WAFERMON_TRACE_ID WAFERMON_SPAN_ID TRACEPARENT)};
$ENV{TRACEPARENT} = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
my $traced = MonitoringSDK->new(service => 'spans', url => $sidecar->url);
is "@ENV{qw(WAFERMON_TRACE_ID WAFERMON_SPAN_ID)}", '4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7', 'TRACEPARENT';

done_testing;
