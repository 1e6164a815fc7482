package LotFile;

# A lot as the tester writes it: comment lines that say what it is, a table with a row a die, and the SHA-256 of all
# that on the last line.

use v5.20;
use warnings;
use Digest::SHA qw(sha256_hex);
use Exporter qw(import);

our @EXPORT_OK = qw(read_lot faults_of);

my @COLUMNS  = qw(wafer x y vth_v idsat_ua ileak_na bin);
my %IS_WHOLE = map { $_ => 1 } qw(wafer x y bin);
my $WHOLE    = qr/\A-?[0-9]+\z/;
my $NUMBER   = qr/\A-?[0-9]+(?:\.[0-9]+)?\z/;

# The header's fields, and `rows`: the dies as hashes, with values as they stand there.
sub read_lot { my ($text) = @_;
    my %lot  = map { /^# (\w+): (\S+)$/ ? ($1 => $2) : () } split /\n/, $text;
    my @rows = grep { !/^#/ } split /\n/, $text;
    shift @rows;    # the columns' names
    $lot{rows} = [ map { my %row; @row{@COLUMNS} = split /,/, $_, -1; \%row } @rows ];
    return \%lot;
}

# What is wrong with a file's text: {fault, line, detail} for each finding. A file whose checksum is wrong is not read
# any further: nothing in it can be believed.
sub faults_of { my ($text) = @_;
    my ($content, $sum) = $text =~ /\A(.*\n)# sha256: (\S+)\n\z/s;
    return { fault => 'wrong_checksum', line => $text =~ tr/\n//, detail => 'the content is not what was written' }
        if !defined $sum || sha256_hex($content) ne $sum;

    my ($number, $named, @found) = (0, 0);
    for my $line (split /\n/, $content) {
        $number++;
        next if $line =~ /^#/ || !$named++;
        my @values = split /,/, $line, -1;
        if (@values != @COLUMNS) {
            push @found, { fault => 'short_row', line => $number, detail => @values . ' of ' . @COLUMNS . ' values' };
            next;
        }
        my @bad = grep { $values[$_] !~ ($IS_WHOLE{ $COLUMNS[$_] } ? $WHOLE : $NUMBER) } 0 .. $#COLUMNS;
        push @found, map { { fault => 'bad_number', line => $number, detail => "$COLUMNS[$_] is '$values[$_]'" } } @bad;
    }
    return @found;
}

1;
