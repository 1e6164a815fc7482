package MonitoringSDK::Spill;

# Messages that find the buffer full, on disk. Promises: only the newest file is written; each file holds whole lines
# and is a stream of its own; a file is removed only when every line in it is settled; as long as this process lives
# it holds a lock on its files, and whoever sends one renames it first, so that no two ever do. Survives a kill, not a
# power cut.

use 5.014;
use warnings;
use Fcntl qw(LOCK_EX LOCK_NB O_APPEND O_CREAT O_EXCL O_RDWR);
use List::Util qw(sum);

# Bytes of a file, bytes of all files together, and lines read in one call, so that it stays short.
use constant { FILE => 1024**2, ALL => 64 * 1024**2, PORTION => 300 };

# Given are dir, service, `stream`, which makes a stream, and `count`, the hash that holds the SDK's stats. A file is
# {path, handle, stream, lines, bytes}; `lines` are those not given to its stream. The oldest is the first one; the last
# one is open for more while `writing`.
sub new { my ($class, %given) = @_; return bless { %given, files => [], bytes => 0, writing => 0 }, $class }

sub default_dir { return -d -w '/var/spool/wafermon' ? '/var/spool/wafermon' : "/tmp/wafermon-$>" }

# Messages in files that are still ours.
sub waiting { my ($self) = @_; return sum(0, map { $_->{lines} + $_->{stream}->waiting } @{ $self->{files} }) }

# One message, JSON without its closing brace; false if it can't be kept.
sub add { my ($self, $body) = @_;
    my $file = $self->{files}[-1];
    if (!$self->{writing} || $file->{bytes} + length($body) + 64 > FILE) {
        $file = $self->_create($self->{stream}->()) or return 0;
        $self->{writing} = 1;
    }
    my $seq = $file->{lines} + 1;
    return $self->_append($file, "$body$file->{stream}{mark}$seq}\n");
}

# The lines of the SDK's own stream, with the seqs they have: for the sidecar, when the program ends. Returns how many
# could not be kept.
sub leave { my ($self, $stream) = @_;
    my @lines = $stream->give_up or return 0;
    my $file  = $self->_create($stream) or return scalar @lines;
    $self->_append($file, $_) || last for @lines;
    return @lines - $file->{lines};
}

sub _create { my ($self, $stream) = @_;
    my $dir = $self->{dir};
    mkdir $dir, 0700;
    # In /tmp anybody could have made a directory, or a link, of that name.
    my $mode = (lstat $dir)[2];
    return if $dir =~ m{\A/tmp/wafermon-\d+\z} && !(-d _ && -o _ && !($mode & 022));
    my $path = "$dir/$self->{service}.$$.$stream->{client}.ldjson";
    sysopen my $handle, $path, O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0640 or return;
    flock $handle, LOCK_EX | LOCK_NB;
    push @{ $self->{files} }, { path => $path, handle => $handle, stream => $stream, lines => 0, bytes => 0 };
    return $self->{files}[-1];
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

# Closes the newest file and sends them, one after the other.
sub pump { my ($self, $now) = @_;
    local $/ = "\n";
    $self->{writing} = 0;
    while (my $file = $self->{files}[0]) {
        if (_claim($file)) {
            my $stream = $file->{stream};
            $stream->pump($now);
            for (1 .. PORTION) {
                last if !$file->{lines} || !$stream->has_room;
                my ($body) = readline($file->{handle}) =~ /\A(.*),"client":/;    # the stream gives it the same seq
                $stream->add($body, $now, PORTION);
                $file->{lines}--;
            }
            $stream->write($now);
            return if $file->{lines} || $stream->waiting;
            unlink $file->{path};
        }
        $self->{count}{handed_over} += $file->{lines};    # to whoever has taken it
        $self->{bytes} -= $file->{bytes};
        shift @{ $self->{files} };
    }
}

sub _claim { my ($file) = @_;
    return 1 if $file->{path} =~ /\.taken\z/;
    rename $file->{path}, "$file->{path}.taken" or return 0;
    $file->{path} .= '.taken';
    return seek $file->{handle}, 0, 0;
}

# The program ends: what is left is for the sidecar, once the locks are free.
sub hand_over { my ($self) = @_;
    $self->{count}{handed_over} += $self->waiting;
    rename $_->{path}, $_->{path} =~ s/\.taken\z//r for @{ $self->{files} };
    @$self{qw(files bytes)} = ([], 0);
}

sub descriptor { my ($self) = @_; return map { $_->{stream}->descriptor } @{ $self->{files} } }

1;
