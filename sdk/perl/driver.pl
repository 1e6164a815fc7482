#!/usr/bin/env perl
# Carries out the calls of the conformance suite: one JSON request per line on stdin, one JSON answer per line on stdout.
# See ../conformance/README.md.

use strict;
use warnings;
use FindBin ();
use lib "$FindBin::Bin/lib";
use IPC::Open2 qw(open2);
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use MonitoringSDK ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

my $json = JSON::PP->new->ascii->allow_nonref;
my @sdks;    # the last one is current

my %arguments = (
    log_event    => [qw(level message context)],
    log_metric   => [qw(name value unit tags kind)],
    log_progress => [qw(job_id percent status)],
    log_resource => [qw(cpu mem disk net)],
    start_span   => [qw(name trace_id tags)],
    end_span     => [qw(span_id status tags)],
    set_trace_id => [qw(trace_id)],
    get_stats    => [],
    flush        => [qw(timeout)],
    close        => [qw(timeout)],
);
my %gives_result = map { $_ => 1 } qw(start_span get_stats);

my %own = (
    open      => sub { push @sdks, MonitoringSDK->new(%{ $_[0] }); return },
    burst     => \&burst,
    fork      => \&in_child,
    spawn     => \&spawn,
    setenv    => \&set_environment,
    sleep     => sub { sleep $_[0]{seconds}; return },
    pid       => sub { return $$ },
    exit      => sub { exit 0 },
    kill_self => sub { kill KILL => $$ },
);

sub answer {
    my ($request) = @_;
    my $result = eval { [ carry_out($request->{call}, $request->{args}) ] };
    return { ok => JSON::PP::true, result => $result->[0] } if $result;
    (my $error = $@) =~ s/(?: at \S+ line \d+\.)?\n\z//;
    return { ok => JSON::PP::false, error => $error };
}

sub carry_out {
    my ($call, $args) = @_;
    return $own{$call}->($call eq 'fork' ? $args : value($args)) if $own{$call};
    my $names = $arguments{$call} or die "unsupported\n";
    my %given = %{ value($args) };
    my $sdk   = $sdks[-1] or die "not open\n";
    my @given = map { $given{$_} } @$names;
    pop @given while @given && !exists $given{ $names->[$#given] };
    my $result = $sdk->$call(@given);
    return $call eq 'flush' ? ($result ? JSON::PP::true : JSON::PP::false) : $gives_result{$call} ? $result : undef;
}

# What JSON can't say.
my %notation = (
    '$bytes'  => sub { decode_base64($_[0]) },
    '$codes'  => sub { no warnings; join '', map { chr } @{ $_[0] } },
    '$float'  => sub { $_[0] =~ /(-?)Inf/ ? "${1}1" * 9**9**9 : $_[0] eq 'NaN' ? -sin(9**9**9) : as_float($_[0]) },
    '$int'    => sub { 0 + $_[0] },
    '$repeat' => sub { $_[0][0] x $_[0][1] },
    '$nest'   => sub { my $inner = 'end'; $inner = { k => $inner } for 1 .. $_[0]; $inner },
    '$cycle'  => sub { my %o; $o{self} = \%o; \%o },
);

sub as_float { return unpack 'd', pack 'd', $_[0] }

sub value {
    my ($value) = @_;
    return [ map { value($_) } @$value ] if ref $value eq 'ARRAY';
    return $value if ref $value ne 'HASH';
    my ($key) = keys %$value;
    if (keys %$value == 1 && $key =~ /\A\$/) {
        my $make = $notation{$key} or die "unsupported\n";
        return $make->($value->{$key});
    }
    return { map { $_ => value($value->{$_}) } keys %$value };
}

sub burst {
    my ($args) = @_;
    my $sdk     = $sdks[-1] or die "not open\n";
    my $first   = $args->{first} || 0;
    my $message = defined $args->{size} ? 'x' x $args->{size} : 'burst';
    my $begun   = clock_gettime(CLOCK_MONOTONIC);
    my @times;
    for my $i ($first .. $first + $args->{n} - 1) {
        my $context = { i => $i, file => 'a.dat', ok => JSON::PP::true, x => 1.5 };
        my $before = clock_gettime(CLOCK_MONOTONIC);
        $sdk->log_event('info', $message, $context);
        push @times, 1e6 * (clock_gettime(CLOCK_MONOTONIC) - $before);
    }
    my %result = (elapsed => clock_gettime(CLOCK_MONOTONIC) - $begun);
    @times = sort { $a <=> $b } @times;
    @result{qw(p50 p99 p999 max)} = map { $times[ $_ * $#times ] } 0.5, 0.99, 0.999, 1;
    return \%result;
}

sub in_child {
    my ($args) = @_;
    pipe my $reader, my $writer or die "pipe: $!\n";
    my $pid = fork;
    die "fork: $!\n" if !defined $pid;
    if (!$pid) {
        close $reader;
        my @answers = map { answer($_) } @{ $args->{calls} };
        print {$writer} $json->encode(\@answers);
        close $writer;
        exit 0;
    }
    close $writer;
    my $text = join '', readline $reader;
    waitpid $pid, 0;
    return { answers => $json->decode($text || '[]'), status => $? >> 8 };
}

sub spawn {
    my ($args) = @_;
    my $pid = open2(my $output, my $input, @{ $args->{argv} });
    print {$input} $args->{stdin} // '';
    close $input;
    my $text = join '', readline $output;
    waitpid $pid, 0;
    return { stdout => $text, status => $? >> 8 };
}

sub set_environment {
    my ($args) = @_;
    for my $name (keys %$args) {
        defined $args->{$name} ? $ENV{$name} = $args->{$name} : delete $ENV{$name};
    }
    return;
}

while (defined(my $line = <STDIN>)) {
    syswrite STDOUT, $json->encode(answer($json->decode($line))) . "\n";
}
