package Log::Any::Adapter::Wafermon;

# What a program says through Log::Any, as wafermon events: the category and the structured data become the context.

use strict;
use warnings;
use Log::Any::Adapter::Util ();
use MonitoringSDK ();
use parent 'Log::Any::Adapter::Base';

our $VERSION = '2.0.0';

my %level_of = (
    trace => 'debug', debug => 'debug', info => 'info', notice => 'info', warning => 'warning',
    error => 'error', critical => 'critical', alert => 'critical', emergency => 'critical',
);

# Options: `sdk`, an open MonitoringSDK, or those of MonitoringSDK->new; `log_level`, the least that is sent (trace).
sub init {
    my ($self) = @_;
    my $least = delete $self->{log_level};
    $self->{least} = Log::Any::Adapter::Util::numeric_level(defined $least ? $least : 'trace');
    my %options = map { $_ => delete $self->{$_} } grep { !/\A(?:sdk|least|category)\z/ } keys %$self;
    $self->{sdk} ||= MonitoringSDK->new(%options);
    return;
}

sub structured {
    my ($self, $level, $category, @parts) = @_;
    return if Log::Any::Adapter::Util::numeric_level($level) > $self->{least};
    my %context = defined $category && length $category ? (category => $category) : ();
    my @texts;
    for my $part (grep { defined } @parts) {
        ref $part eq 'HASH' ? @context{ keys %$part } = values %$part : push @texts, $part;
    }
    $self->{sdk}->log_event($level_of{$level}, join(' ', @texts), %context ? \%context : undef);
    return;
}

# With a filter, Log::Any makes one text of everything and calls these.
for my $method (Log::Any::Adapter::Util::logging_methods()) {
    no strict 'refs';
    *$method = sub { my ($self, @parts) = @_; return $self->structured($method, $self->{category}, @parts) };
}

for my $method (Log::Any::Adapter::Util::detection_methods()) {
    my $level = Log::Any::Adapter::Util::numeric_level(substr $method, 3);
    no strict 'refs';
    *$method = sub { return $level <= $_[0]{least} };
}

1;

__END__

=encoding UTF-8

=head1 NAME

Log::Any::Adapter::Wafermon - Log::Any messages as wafermon events

=head1 SYNOPSIS

    use Log::Any::Adapter;
    Log::Any::Adapter->set('Wafermon', service => 'file-receiver', log_level => 'info');

    # or into an object that the program has anyway, with its trace and spans
    Log::Any::Adapter->set('Wafermon', sdk => $sdk);

    use Log::Any '$log';
    $log->info('file received', { file => $file, rows => $rows });

=head1 DESCRIPTION

Every message becomes an event. C<trace> is sent as C<debug>, C<notice> as C<info>, C<alert> and C<emergency> as
C<critical>. A hash reference after the text becomes the context, and the category is its key C<category>.

Options are C<sdk>, or those of L<MonitoringSDK/new>, and C<log_level>, the least level that is sent (C<trace>).

=head1 SEE ALSO

L<MonitoringSDK>, L<Log::Any>

=cut
