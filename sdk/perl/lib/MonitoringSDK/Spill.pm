package MonitoringSDK::Spill;

# Messages that find the buffer full, on disk. Promises: only the newest file is written; each file holds whole lines
# and is a stream of its own; a file is removed only when every line in it is settled; as long as this process lives
# it holds a lock on its files, and whoever sends one renames it first, so that no two ever do. Survives a kill, not a
# power cut.

use 5.014;
use warnings;
use Fcntl qw(LOCK_EX LOCK_NB O_APPEND O_CREAT O_EXCL O_RDWR);
use MonitoringSDK::Random qw(hex_id);

# Bytes of a file, bytes of all files together, and lines read in one call, so that it stays short.
use constant { FILE => 1024**2, ALL => 64 * 1024**2, PORTION => 300 };

# Given are dir, service, `stream`, which makes the stream for a client, and `count`, the hash that holds the SDK's
# stats. A file is {path, handle, client, lines, bytes} and, while it is sent, {stream}; `lines` are those not given
# to it.
sub new { my ($class, %given) = @_;
    return bless { %given, bytes => 0, newest => undef, closed => [], sending => undef }, $class;
}

sub default_dir {
    my $shared = '/var/spool/wafermon';
    return -d $shared && -w _ ? $shared : "/tmp/wafermon-$>";
}

# Messages in files that are still ours.
sub waiting { my ($self) = @_;
    my $count = $self->{sending} ? $self->{sending}{stream}->waiting : 0;
    $count += $_->{lines} for grep { defined } @$self{qw(sending newest)}, @{ $self->{closed} };
    return $count;
}

# One message, JSON without its closing brace; false if it can't be kept.
sub add { my ($self, $body) = @_;
    $self->roll if $self->{newest} && $self->{newest}{bytes} + length($body) + 64 > FILE;
    my $file = $self->{newest} ||= $self->_create(hex_id(16)) or return 0;
    my $seq = $file->{lines} + 1;
    return $self->_append($file, qq($body,"client":"$file->{client}","seq":$seq}\n));
}

# The lines of the SDK's own stream, with the seqs they have: for the sidecar, when the program ends. Returns how many.
sub leave { my ($self, $client, @lines) = @_;
    my $file = $self->_create($client) or return 0;
    push @{ $self->{closed} }, $file;
    $self->_append($file, $_) || last for @lines;
    return $file->{lines};
}

sub _create { my ($self, $client) = @_;
    my $dir = $self->{dir};
    mkdir $dir, 0700;
    # In /tmp anybody could have made a directory, or a link, of that name.
    my $mode = (lstat $dir)[2];
    return if $dir =~ m{\A/tmp/wafermon-\d+\z} && !(-d _ && -o _ && !($mode & 022));
    my $path = "$dir/$self->{service}.$$.$client.ldjson";
    sysopen my $handle, $path, O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0640 or return;
    flock $handle, LOCK_EX | LOCK_NB;
    return { path => $path, handle => $handle, client => $client, lines => 0, bytes => 0 };
}

sub _append { my ($self, $file, $line) = @_;
    return 0 if $self->{bytes} + length $line > ALL;
    if ((syswrite($file->{handle}, $line) // 0) != length $line) {
        truncate $file->{handle}, $file->{bytes};    # whole lines only
        return 0;
    }
    $_ += length $line for $file->{bytes}, $self->{bytes};
    $_++ for $file->{lines}, $self->{count}{spilled};
    return 1;
}

# Closes the newest file, so that it can be sent.
sub roll { my ($self) = @_;
    my $file = delete $self->{newest} or return;
    push @{ $self->{closed} }, $file;
}

# Sends the closed files, one after the other.
sub pump { my ($self, $now) = @_;
    my $file = $self->{sending} ||= $self->_claim or return;
    my $stream = $file->{stream};
    local $/ = "\n";
    $stream->pump($now);
    for (1 .. PORTION) {
        last if !$file->{lines} || !$stream->has_room;
        $stream->take(scalar readline $file->{handle});
        $file->{lines}--;
    }
    $stream->write($now) if $stream->is_open;
    return if $file->{lines} || $stream->waiting;
    unlink $file->{path};
    $self->{bytes} -= $file->{bytes};
    delete $self->{sending};
    $self->pump($now);
}

sub _claim { my ($self) = @_;
    while (my $file = shift @{ $self->{closed} }) {
        if ($file->{lines} && rename $file->{path}, "$file->{path}.taken") {
            $file->{path} .= '.taken';
            seek $file->{handle}, 0, 0;
            $file->{stream} = $self->{stream}->($file->{client});
            return $file;
        }
        unlink $file->{path} if !$file->{lines};
        $self->{count}{handed_over} += $file->{lines};
        $self->{bytes} -= $file->{bytes};
    }
    return;
}

# The program ends: what is left is for the sidecar, once the locks are free.
sub hand_over { my ($self) = @_;
    $self->{count}{handed_over} += $self->waiting;
    my $path = $self->{sending} ? $self->{sending}{path} : '';
    rename $path, $path =~ s/\.taken\z//r if $path;
    @$self{qw(newest sending closed bytes)} = (undef, undef, [], 0);
}

sub descriptor { return $_[0]{sending} ? $_[0]{sending}{stream}->descriptor : () }

1;
