package MonitoringSDK::Spill;

# Messages that find the buffer full, on disk. Promises: only the newest file is written; each file holds whole lines and
# is a stream of its own; a file is removed only when every line in it is settled; as long as this process lives it holds
# a lock on its files, and whoever sends one renames it first, so that no two ever do. Survives a kill, not a power cut.

use strict;
use warnings;
use Fcntl qw(LOCK_EX LOCK_NB O_APPEND O_CREAT O_EXCL O_RDWR SEEK_SET S_ISDIR);
use MonitoringSDK::Random qw(hex_id);

use constant {
    FILE    => 1024**2,         # bytes
    ALL     => 64 * 1024**2,    # bytes of all files together
    PORTION => 64 * 1024,       # bytes read at once, and how often in one call
    PORTIONS => 4,
};

# `stream` makes the stream for a client, `count` holds the SDK's stats.
sub new {
    my ($class, %given) = @_;
    return bless {
        %given,         # dir, service, count, stream
        bytes => 0,
        newest => undef, closed => [],          # files: path, handle, client, count, bytes
        sending => undef, sent_by => undef,     # the file under way, and its stream
    }, $class;
}

sub default_dir {
    my $shared = '/var/spool/wafermon';
    return -d $shared && -w _ ? $shared : "/tmp/wafermon-$>";
}

# Messages in files that are still ours.
sub waiting {
    my ($self) = @_;
    my $count = 0;
    $count += $_->{count} for $self->_files;
    $count -= $self->{sent_by}{settled} if $self->{sent_by};
    return $count;
}

sub _files { return grep { defined } $_[0]{sending}, @{ $_[0]{closed} }, $_[0]{newest} }

# One message, JSON without its closing brace; false if it can't be kept.
sub add {
    my ($self, $body) = @_;
    local $!;
    $self->roll if $self->{newest} && $self->{newest}{bytes} + length($body) + 64 > FILE;
    my $file = $self->{newest} ||= $self->_create(hex_id(16)) or return 0;
    my $seq = $file->{count} + 1;
    return $self->_append($file, qq($body,"client":"$file->{client}","seq":$seq}\n));
}

# The lines of the SDK's own stream, with the seqs they have: for the sidecar, when the program ends. Returns how many.
sub leave {
    my ($self, $client, @lines) = @_;
    my $file = $self->_create($client) or return 0;
    my $kept = 0;
    for my $line (@lines) {
        $self->_append($file, $line) or last;
        $kept++;
    }
    push @{ $self->{closed} }, $file;
    return $kept;
}

sub _create {
    my ($self, $client) = @_;
    my $dir = $self->{dir};
    mkdir $dir, 0700;
    # In /tmp anybody could have made a directory, or a link, of that name.
    my @found = lstat $dir;
    return undef if $dir =~ m{\A/tmp/wafermon-\d+\z} && !(@found && S_ISDIR($found[2]) && $found[4] == $> && !($found[2] & 022));
    my $path = "$dir/$self->{service}.$$.$client.ldjson";
    sysopen my $handle, $path, O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0640 or return undef;
    flock $handle, LOCK_EX | LOCK_NB;
    return { path => $path, handle => $handle, client => $client, count => 0, bytes => 0 };
}

sub _append {
    my ($self, $file, $line) = @_;
    return 0 if $self->{bytes} + length $line > ALL;
    my $written = syswrite $file->{handle}, $line;
    if (!defined $written || $written != length $line) {
        truncate $file->{handle}, $file->{bytes};    # whole lines only
        return 0;
    }
    $file->{count}++;
    $file->{bytes}  += $written;
    $self->{bytes}  += $written;
    $self->{count}{spilled}++;
    return 1;
}

# Closes the newest file, so that it can be sent.
sub roll {
    my ($self) = @_;
    my $file = delete $self->{newest} or return;
    push @{ $self->{closed} }, $file;
    return;
}

# Sends the closed files, one after the other.
sub pump {
    my ($self, $now) = @_;
    $self->_claim if !$self->{sending};
    my $file   = $self->{sending} or return;
    my $stream = $self->{sent_by};
    $stream->pump($now);
    # A few portions at a time, so that a call stays short.
    for (1 .. PORTIONS) {
        last if !$stream->has_room || $stream->unsent || !$file->{unread};
        $self->_feed($file, $stream);
        $stream->write($now);
    }
    return if $stream->waiting || $file->{unread};
    unlink $file->{path};
    $self->_forget($file);
    $stream->abandon;
    @$self{qw(sending sent_by)} = ();
    return $self->pump($now);
}

sub _claim {
    my ($self) = @_;
    while (my $file = shift @{ $self->{closed} }) {
        if ($file->{count} && rename $file->{path}, "$file->{path}.taken") {
            $file->{path} .= '.taken';
            @$file{qw(unread rest)} = ($file->{bytes}, '');
            sysseek $file->{handle}, 0, SEEK_SET;
            @$self{qw(sending sent_by)} = ($file, $self->{stream}->($file->{client}));
            return;
        }
        unlink $file->{path} if !$file->{count};
        $self->{count}{handed_over} += $file->{count};
        $self->_forget($file);
    }
    return;
}

sub _feed {
    my ($self, $file, $stream) = @_;
    my $got = sysread $file->{handle}, $file->{rest}, PORTION, length $file->{rest};
    $file->{unread} = $got ? $file->{unread} - $got : 0;
    my @lines = split /(?<=\n)/, $file->{rest};
    $file->{rest} = @lines && $lines[-1] !~ /\n\z/ ? pop @lines : '';
    return $stream->add_lines(@lines);
}

sub _forget {
    my ($self, $file) = @_;
    close $file->{handle};
    $self->{bytes} -= $file->{bytes};
    return;
}

# The program ends: what is left is for the sidecar, once the locks are free.
sub hand_over {
    my ($self) = @_;
    $self->{count}{handed_over} += $self->waiting;
    if (my $file = $self->{sending}) {
        (my $unclaimed = $file->{path}) =~ s/\.taken\z//;
        rename $file->{path}, $unclaimed;
    }
    $self->abandon;
    return;
}

# Lets go of everything without touching it: also what a forked child does, whose parent goes on holding the locks.
sub abandon {
    my ($self) = @_;
    $self->{sent_by}->abandon if $self->{sent_by};
    close $_->{handle} for $self->_files;
    @$self{qw(newest closed sending sent_by bytes)} = (undef, [], undef, undef, 0);
    return;
}

sub watch {
    my ($self) = @_;
    $self->{sent_by}->watch($_[1], $_[2]) if $self->{sent_by};
    return;
}

sub retry_at { return $_[0]{sent_by} ? $_[0]{sent_by}->retry_at : undef }

1;
