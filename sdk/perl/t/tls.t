# TLS: where IO::Socket::SSL is there, tls:// works, and a certificate that doesn't fit is refused.

use strict;
use warnings;
use lib 'lib', 't';
use File::Temp qw(tempdir);
use MonitoringSDK ();
use Sidecar ();
use Test::More;

plan skip_all => 'IO::Socket::SSL is not installed' if !eval { require IO::Socket::SSL };
require IO::Socket::SSL::Utils;

delete @ENV{ grep { /\A(?:WAFERMON_|TRACEPARENT)/ } keys %ENV };
my $dir = tempdir(CLEANUP => 1);
my @authority = IO::Socket::SSL::Utils::CERT_create(CA => 1, subject => { commonName => 'test authority' });
my ($certificate, $key) = IO::Socket::SSL::Utils::CERT_create(
    issuer => \@authority, purpose => 'server', subject => { commonName => 'localhost' }, subjectAltNames => [ [ DNS => 'localhost' ] ]);
IO::Socket::SSL::Utils::PEM_cert2file($authority[0], "$dir/ca.pem");
IO::Socket::SSL::Utils::PEM_cert2file($certificate, "$dir/cert.pem");
IO::Socket::SSL::Utils::PEM_key2file($key, "$dir/key.pem");

$ENV{SSL_CERT_FILE} = "$dir/ca.pem";    # which IO::Socket::SSL reads once, at its first use
my $sidecar = Sidecar->start(tls => [ SSL_cert_file => "$dir/cert.pem", SSL_key_file => "$dir/key.pem" ]);
my @options = (service => 'tls', spill_dir => $dir, url => 'tls://localhost:' . $sidecar->port);

my $program = qq{WAFERMON_URL=$options[-1] WAFERMON_SPILL_DIR=$dir $^X -Ilib -MMonitoringSDK -e 'my \$sdk = MonitoringSDK->new(service => "tls"); \$sdk->log_event("info", "x"); print \$sdk->flush(0.5) ? "sent" : "kept"' 2>&1};
my $said = qx{SSL_CERT_FILE= $program};
like $said, qr/\Awafermon: refused by tls:.*certificate verify failed.*\nkept\z/, 'a certificate that nobody vouches for: said once, kept';
for my $name (qw(CA CERT KEY)) {
    $said = qx{WAFERMON_TLS_$name=$dir/no.pem $program};
    like $said, qr{\Awafermon: refused by tls:.*/no\.pem can't be used: No such file or directory\nkept\z}, "no file $name: the same";
}

my $sdk = MonitoringSDK->new(@options);
$sdk->log_event('info', 'x' x 3_000, { i => $_ }) for 1 .. 500;
ok $sdk->flush(60), 'over TLS';
is_deeply [ map { $_->{context}{i} } $sidecar->messages ], [ 1 .. 500 ];

my $pid = fork // die;
if (!$pid) {
    $sdk->log_event('info', 'child', { i => 501 });
    exit 0;
}
waitpid $pid, 0;
is $?, 0;
$sdk->log_event('info', 'parent', { i => 502 });
ok $sdk->flush(60);
is $sdk->get_stats->{reconnects}, 0, "a child that lets go of the connection doesn't end it";
$sdk->close;
is_deeply [ map { $_->{context}{i} } $sidecar->messages ], [ 1 .. 502 ];

done_testing;
