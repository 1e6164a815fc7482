package MonitoringSDK::Zlib;

# Lines as a compressed frame, loaded only where WAFERMON_COMPRESS asks for it.

use 5.014;
use warnings;
use Compress::Raw::Zlib qw(Z_BEST_SPEED);

# Given whole lines and how many they are: the head of the frame, and one zlib block.
sub frame {
    my ($lines, $count) = @_;
    my ($deflate) = Compress::Raw::Zlib::Deflate->new(-Level => Z_BEST_SPEED, -AppendOutput => 1);
    my $block = '';
    $deflate->deflate($lines, $block);
    $deflate->flush($block);
    my ($bytes, $raw) = (length $block, length $lines);
    return qq({"type":"frame","codec":"zlib","bytes":$bytes,"raw":$raw,"lines":$count}\n$block);
}

1;
