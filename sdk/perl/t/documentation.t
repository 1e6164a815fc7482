# The manual has no faults and names every call; the example runs.

use strict;
use warnings;
use lib 'lib', 't';
use MonitoringSDK ();
use Pod::Checker ();
use Sidecar ();
use Test::More;

for my $file ('lib/MonitoringSDK.pm', 'lib/Log/Any/Adapter/Wafermon.pm', 'lib/Log/Log4perl/Appender/Wafermon.pm') {
    open my $nowhere, '>', \my $complaints;
    my $checker = Pod::Checker->new(-warnings => 1);
    $checker->parse_from_file($file, $nowhere);
    is $checker->num_errors, 0, "$file: no errors";
    is $checker->num_warnings, 0, "$file: no warnings" or diag $complaints;
}
open my $source, '<', 'lib/MonitoringSDK.pm' or die;
my $text = join '', readline $source;
my %section = $text =~ /^package (MonitoringSDK\S*);\n(.*?)(?=^package MonitoringSDK|^__END__)/msg;
my @calls = grep { !/\A_|\A[A-Z]/ } map { /^sub (\w+)/mg } @section{qw(MonitoringSDK MonitoringSDK::Span)};
cmp_ok scalar @calls, '>', 10;
like $text, qr/^=head2 .*\b$_\b/m, "the manual has $_" for @calls;

open my $manifest, '<', 'MANIFEST' or die;
my @listed = map { /^(\S+)/ } readline $manifest; # a name may be followed by what it is
my @missing = grep { !-f } @listed;
is "@missing", '', 'MANIFEST names files that are there';
my %listed = map { $_ => 1 } @listed;
is join(' ', grep { !$listed{$_} } glob 'lib/*.pm lib/*/*.pm lib/*/*/*/*.pm t/* *.pl *.PL README.md'), '', 'all of them';

my $sidecar = Sidecar->start;
local $ENV{WAFERMON_URL} = $sidecar->url;
local $ENV{WAFERMON_TRACE_ID};
is qx{$^X example.pl MANIFEST no-such-file}, "11 messages, all acknowledged\n", 'the example';
is_deeply [ map { $_->{status} } grep { $_->{type} eq 'span_end' } $sidecar->messages ], [qw(ok error)];

done_testing;
