package LotQueue;

# A queue in a folder, for any number of processes. A message is a file, and renaming it is all that ever happens to
# it, so that it is in exactly one place whenever a process dies:
#
#     tmp/ -> new/ -> claimed/ -> done/         a name: TIME.PID.NUMBER,tries=N
#              ^         |-> failed/            a claim: the name and ,by=PID
#              '---------'   retried: due at the file's mtime
#
# The first line of a file is the header, JSON; what follows is the body.

use v5.20;
use warnings;
use JSON::PP qw(decode_json encode_json);
use Time::HiRes qw(stat time utime);

my @FOLDERS = qw(tmp new claimed done failed);

sub new { my ($class, $folder) = @_;
    for my $made ($folder, map { "$folder/$_" } @FOLDERS) {
        mkdir $made or -d $made or die "$made: $!\n";
    }
    return bless { folder => $folder, count => 0 }, $class;
}

# Put a message in. It is there as a whole or not at all.
sub put { my ($self, $header, $body) = @_;
    my $name = sprintf '%.6f.%d.%d,tries=0', time, $$, ++$self->{count};
    my $part = "$self->{folder}/tmp/$name";
    open my $file, '>:raw', $part or die "$part: $!\n";
    print {$file} encode_json($header), "\n", $body;
    close $file or die "$part: $!\n";
    _move($part, "$self->{folder}/new/$name") or die "$part: $!\n";
}

# Take the oldest message that is due: its header, and `name`, `path`, `tries`. Undef where there is none. Another
# process may be quicker; then the rename fails and the next message is tried.
sub claim { my ($self) = @_;
    for my $name ($self->names('new')) {
        my $path = "$self->{folder}/new/$name";
        my $due  = (stat $path)[9] // next;
        next if $due > time;
        my $claimed = "$self->{folder}/claimed/$name,by=$$";
        next if !_move($path, $claimed);
        my ($tries) = $name =~ /,tries=(\d+)/;
        return { %{ header($claimed) }, name => $name, path => $claimed, tries => $tries + 1 };
    }
    return;
}

sub finish { my ($self, $message) = @_; return $self->_settle($message, 'done') }
sub bury   { my ($self, $message) = @_; return $self->_settle($message, 'failed') }

# Give a claimed message back; it is due again after so many seconds.
sub retry { my ($self, $message, $delay) = @_;
    my $due = time + $delay;
    utime $due, $due, $message->{path} or die "$message->{path}: $!\n";
    my $name = $message->{name} =~ s/,tries=\d+/,tries=$message->{tries}/r;
    _move($message->{path}, "$self->{folder}/new/$name") or die "$message->{path}: $!\n";
}

# Put back what processes had claimed that are no more; how many messages that was.
sub recover { my ($self) = @_;
    my @left = grep { /,by=(\d+)\z/ && !kill 0, $1 } $self->names('claimed');
    return scalar grep { _move("$self->{folder}/claimed/$_", "$self->{folder}/new/" . s/,by=\d+\z//r) } @left;
}

# What is in one of the folders, oldest first; in scalar context, how many.
sub names { my ($self, $folder) = @_;
    opendir my $handle, "$self->{folder}/$folder" or die "$self->{folder}/$folder: $!\n";
    my @names = sort grep { /^\d/ } readdir $handle;
    return @names;
}

sub header { my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    return decode_json(scalar readline $file);
}

sub body { my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    readline $file;
    local $/;
    return readline $file;
}

sub _settle { my ($self, $message, $folder) = @_;
    _move($message->{path}, "$self->{folder}/$folder/$message->{name}") or die "$message->{path}: $!\n";
}

sub _move { my ($from, $to) = @_; return rename $from, $to }

1;
