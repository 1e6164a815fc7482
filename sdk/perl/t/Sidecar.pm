package Sidecar;

# A real server in a forked child, for the tests: speaks the protocol on a real socket and can be told to misbehave. What
# it received it writes, one JSON line for each connection, into a file that messages() and hellos() read.
#
#   my $sidecar = Sidecar->start(port => 7411, behave => sub { my ($connection_number) = @_; return {...} });
#
# Instead of the port: path => of a Unix socket, tls => [options of IO::Socket::SSL]. What a connection may do:
# welcome => 0 (stays silent), ack => 0, refuse => 'code', reject => {seq => 'code'}, close_after => N lines, read => 0.
# exact => 1 (acknowledges no rejected line).

use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Select ();
use IO::Socket::INET ();
use IO::Socket::UNIX ();
use JSON::PP ();
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->utf8->canonical;

sub start {
    my ($class, %given) = @_;
    my $dir = $given{dir} || tempdir(CLEANUP => 1);
    my $listener = $given{tls} ? IO::Socket::SSL->new(LocalAddr => '127.0.0.1', Listen => 64, @{ $given{tls} })
        : $given{path}
        ? IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $given{path}, Listen => 64)
        : IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $given{port} || 0, Listen => 64, ReuseAddr => 1);
    die "can't listen: $!" if !$listener;
    my $self = bless {
        owner => $$, log => "$dir/received", port => $given{path} ? undef : $listener->sockport,
        url => $given{path} ? "unix://$given{path}" : 'tcp://127.0.0.1:' . $listener->sockport,
    }, $class;
    $self->{pid} = fork;
    die "fork: $!" if !defined $self->{pid};
    if (!$self->{pid}) {
        eval { serve($listener, $self->{log}, $given{behave} || sub { {} }) };
        print STDERR $@ if $@;
        require POSIX;
        POSIX::_exit(0);    # the test's END blocks are not ours
    }
    return $self;
}

sub url  { return $_[0]{url} }
sub port { return $_[0]{port} }

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill KILL => $pid;
    waitpid $pid, 0;
    return;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!, $@);
    $self->stop if $self->{owner} == $$;
    return;
}

sub received {
    my ($self) = @_;
    open my $file, '<:raw', $self->{log} or return;
    return map { $json->decode($_) } grep { /\n\z/ } readline $file;
}

sub messages { return grep { $_->{type} ne 'hello' } $_[0]->received }
sub hellos   { return grep { $_->{type} eq 'hello' } $_[0]->received }

# Waits, calling the SDK's stats so that it works, until the condition holds.
sub until {
    my ($self, $condition, $sdk) = @_;
    my $deadline = time + 10;
    while (time < $deadline) {
        return 1 if $condition->();
        $sdk->get_stats if $sdk;
        sleep 0.01;
    }
    return 0;
}

sub serve {
    my ($listener, $path, $behave) = @_;
    local $SIG{PIPE} = 'IGNORE';    # a program may be gone before it is answered
    open my $log, '>>:raw', $path or die "$path: $!";
    my $select = IO::Select->new($listener);
    my (%connection, %mark, $count);
    while (1) {
        for my $ready ($select->can_read) {
            if ($ready == $listener) {
                my $new = $listener->accept or next;
                my $manners = { welcome => 1, ack => 1, read => 1, %{ $behave->(++$count) } };
                $connection{$new} = { manners => $manners, in => '', lines => 0 };
                $select->add($new) if $manners->{read};
                next;
            }
            my $one = $connection{$ready};
            my $got = sysread $ready, $one->{in}, 65_536, length $one->{in};
            $got = sysread $ready, $one->{in}, 65_536, length $one->{in} while $got && $ready->can('pending') && $ready->pending;
            if (!$got) {
                $select->remove($ready);
                close $ready;
                next;
            }
            my @lines = split /\n/, $one->{in}, -1;
            $one->{in} = pop @lines;
            my ($reply, $end, $seq) = ('', 0, undef);
            for my $line (@lines) {
                my $message = $json->decode($line);
                my $manners = $one->{manners};
                if ($message->{type} eq 'hello') {
                    syswrite $log, "$line\n";
                    $one->{client} = $message->{client};
                    if ($manners->{refuse}) {
                        $reply .= qq({"type":"error","code":"$manners->{refuse}","detail":"go away"}\n);
                        $end = 1;
                    }
                    elsif ($manners->{welcome}) {
                        my $acked = $mark{ $one->{client} } || 0;
                        $reply .= qq({"v":2,"type":"welcome","sidecar":"test","acked":$acked,"max_line":65536}\n);
                    }
                    next;
                }
                last if $end;
                next if $message->{seq} <= ($mark{ $one->{client} } || 0);
                if (my $code = $manners->{reject}{ $message->{seq} }) {
                    $reply .= qq({"type":"error","seq":$message->{seq},"code":"$code","detail":"no"}\n);
                }
                else {
                    syswrite $log, "$line\n";
                }
                $seq = $message->{seq} if !$manners->{exact} || !$manners->{reject}{ $message->{seq} };
                $end = 1 if $manners->{close_after} && ++$one->{lines} >= $manners->{close_after};
                $mark{ $one->{client} } = $message->{seq} if $manners->{ack};
            }
            $reply .= qq({"type":"ack","seq":$seq}\n) if $seq && $one->{manners}{ack};
            syswrite $ready, $reply if $reply ne '';
            if ($end) {
                $select->remove($ready);
                close $ready;
            }
        }
    }
}

1;
