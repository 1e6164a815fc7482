package Log::Log4perl::Appender::Wafermon;

# What a program says through Log4perl, as wafermon events: the category and the MDC become the context.

use strict;
use warnings;
use Log::Log4perl::Level ();
use Log::Log4perl::MDC ();
use MonitoringSDK ();

our $VERSION = '2.0.0';

my %level_of = (
    TRACE => 'debug', DEBUG => 'debug', INFO => 'info', WARN => 'warning', ERROR => 'error', FATAL => 'critical',
);
# What Log4perl's configuration may say of any appender.
my %not_ours = map { $_ => 1 } qw(name layout Threshold Filter appender min_level max_level warp_message);

# Options: `sdk`, an open MonitoringSDK, or those of MonitoringSDK->new.
sub new {
    my ($class, %given) = @_;
    my %options = map { $_ => $given{$_} } grep { !$not_ours{$_} && !ref($given{$_}) } keys %given;
    return bless { name => $given{name}, sdk => $given{sdk} || MonitoringSDK->new(%options) }, $class;
}

# A level that a program has added counts as the next lower one of Log4perl's own.
sub log {
    my ($self, %record) = @_;
    my %context = %{ Log::Log4perl::MDC->get_context };
    $context{category} = $record{log4p_category} if length($record{log4p_category} // '');
    my @texts;
    for my $part (ref $record{message} eq 'ARRAY' ? @{ $record{message} } : $record{message}) {
        ref $part eq 'HASH' ? @context{ keys %$part } = values %$part : push @texts, $part // 'undef';
    }
    my $text = join '', @texts;
    $text =~ s/\n\z//;    # layouts end lines
    $self->{sdk}->log_event(_level($record{log4p_level}), $text, %context ? \%context : undef);
    return;
}

sub _level {
    my ($name) = @_;
    return $level_of{$name} if $level_of{$name};
    my $priority = Log::Log4perl::Level::to_priority($name);
    my @names = grep { Log::Log4perl::Level::to_priority($_) <= $priority } qw(TRACE DEBUG INFO WARN ERROR FATAL);
    return @names ? $level_of{ $names[-1] } : 'debug';
}

1;

__END__

=encoding UTF-8

=head1 NAME

Log::Log4perl::Appender::Wafermon - Log4perl messages as wafermon events

=head1 SYNOPSIS

    # in Log4perl's configuration
    log4perl.rootLogger                    = INFO, Wafermon
    log4perl.appender.Wafermon             = Log::Log4perl::Appender::Wafermon
    log4perl.appender.Wafermon.service     = file-receiver
    log4perl.appender.Wafermon.layout      = Log::Log4perl::Layout::NoopLayout

    # or into an object that the program has anyway, with its trace and spans
    my $appender = Log::Log4perl::Appender->new('Log::Log4perl::Appender::Wafermon', name => 'Wafermon', sdk => $sdk);
    Log::Log4perl->get_logger('')->add_appender($appender);

=head1 DESCRIPTION

Every message becomes an event. C<TRACE> is sent as C<debug>, C<FATAL> as C<critical>, a level of the program's own as
the next lower one of Log4perl's. The context holds the MDC, and the category as C<category>. With
C<warp_message = 0> and a layout that leaves parts alone (C<NoopLayout>), a hash reference among the parts of a message
becomes context too.

Options are C<sdk>, or those of L<MonitoringSDK/new>.

=head1 SEE ALSO

L<MonitoringSDK>, L<Log::Log4perl>

=cut
