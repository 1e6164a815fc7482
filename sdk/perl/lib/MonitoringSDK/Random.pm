package MonitoringSDK::Random;

# Random ids and jitter from the system's source: the program's own rand() sequence stays untouched.

use 5.014;
use warnings;
use Exporter 'import';
use Time::HiRes ();

our @EXPORT_OK = qw(hex_id fraction);

# A supply, since opening the device costs more than a span does. A forked child must not share it.
my ($supply, $owner) = ('', 0);

sub bytes { my ($count) = @_;
    ($supply, $owner) = ('', $$) if $owner != $$ || length $supply < $count;
    if ($supply eq '' && open my $device, '<:raw', '/dev/urandom') { sysread $device, $supply, 256 }
    # In a chroot without the device: different at least from every other moment and process.
    $supply .= pack 'NN', $$, Time::HiRes::time() * 1e6 & 0xFFFF_FFFF while length $supply < $count;
    return substr $supply, 0, $count, '';
}

sub hex_id   { return unpack 'H*', bytes($_[0] / 2) }    # that many digits
sub fraction { return unpack('N', bytes(4)) / 2**32 }    # 0 up to 1

1;
