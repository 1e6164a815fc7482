package MonitoringSDK::Encoder;

# Perl values to compact JSON bytes, in one pass. Promises: the result is valid UTF-8 without NUL and without line ends;
# no value makes it die; the caller's data is left as it was (stringifying a number in place would turn it into a string
# before Perl 5.36, hence the copies).

use 5.014;
use warnings;
no if $] >= 5.036, warnings => 'experimental::builtin';
use B ();
use Encode ();
use Exporter 'import';
use List::Util qw(max);
use Scalar::Util qw(refaddr);

our @EXPORT_OK = qw(MAX_LINE float number object shorten string tags);

# KEPT: strings this short are never cut: ids, names, the service.
use constant { MAX_LINE => 65_536, MAX_DEPTH => 8, MAX_INTEGER => 9_007_199_254_740_992, KEPT => 256 };
use constant { REPLACEMENT => "\xEF\xBF\xBD", TRUNCATED => ',"truncated":true' };

# A number is what has a numeric flag and no string flag: "007" read from a file stays a string.
sub flags_say_number {
    my $flags = B::svref_2object(\$_[0])->FLAGS;
    return $flags & (B::SVf_IOK | B::SVf_NOK) && !($flags & B::SVf_POK);
}

BEGIN {
    no warnings 'once';
    *is_number = defined &builtin::created_as_number ? \&builtin::created_as_number : \&flags_say_number;
}

my %escape = map { chr($_) => sprintf '\u%04x', $_ } 1 .. 31;
@escape{ "\0", '"', '\\', "\n", "\r", "\t" } = (REPLACEMENT, '\"', '\\\\', '\n', '\r', '\t');

# A character string, or bytes that are UTF-8 or something near it.
sub string {
    my $text = "$_[0]";
    return qq("$text") if $text !~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c;

    # What is longer can't fit a line, so it will be shortened anyway.
    $text = substr $text, 0, MAX_LINE if length $text > MAX_LINE;
    utf8::is_utf8($text) or utf8::decode($text) or $text = Encode::decode('UTF-8', $text);
    no warnings qw(surrogate non_unicode);
    $text =~ s/[^\x{0}-\x{D7FF}\x{E000}-\x{10FFFF}]/\x{FFFD}/g;
    utf8::encode($text);
    $text =~ s/([\x00-\x1f"\\])/$escape{$1}/g;
    return qq("$text");
}

# The shortest text that reads back as the same double; what is no finite number is named.
sub float { my ($value) = @_;
    return $value != $value ? '"NaN"' : $value > 0 ? '"Infinity"' : '"-Infinity"' if $value - $value != 0;
    my $text = "$value";    # %.15g, for what is not an integer
    for my $digits (15, 16, 17) {
        last if $text == $value && $text !~ /\A-?[0-9]{16,}\z/;
        $text = sprintf "%.${digits}g", $value;
    }
    # A bare run of digits beyond 2^53 would be taken for an exact integer.
    return abs $value > MAX_INTEGER && $text !~ /[.e]/ ? "$text.0" : $text;
}

# A number inside context or tags. Perl's own text of a double has 15 digits, which usually are enough.
sub number { my ($value) = @_;
    my $text = "$value";
    return $text if $text == $value && abs $value <= MAX_INTEGER;
    return qq("$text") if $text =~ /\A-?[0-9]{16,}\z/;
    return $value - $value == 0 ? float($value) : 'null';
}

# A hash reference. This loop is what a call spends most of its time in, so the usual values are encoded in place.
sub object { my ($hash, $depth) = @_;
    my $json = '';
    for my $key (keys %$hash) {
        my ($value, $text) = $hash->{$key};
        $json .= $key =~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c ? ',' . string($key) . ':' : qq(,"$key":);
        $json .=
            !defined $value || ref $value ? nested($value, ($depth || 1) + 1)
          : is_number($value) ? (($text = "$value") == $value && abs $value <= MAX_INTEGER ? $text : number($value))
          : $value =~ tr/\x20\x21\x23-\x5b\x5d-\x7e//c ? string($value) : qq("$value");
    }
    return '{' . substr($json, !!$json) . '}';
}

# Tags hold strings and numbers only, so a reference is sent as text.
sub tags { my ($hash) = @_;
    return object({ map { $_ => ref $hash->{$_} ? as_text($hash->{$_}) : $hash->{$_} } keys %$hash });
}

my %open;      # the containers around the one at hand, by address: a cycle ends as text
my $budget;    # bytes that one value may still take: data that refer to themselves in many ways must end too

sub nested { my ($value, $depth) = @_;
    my ($type, $plain) = (ref $value, defined $value ? boolean($value) : 'null');
    return $plain if defined $plain;
    $budget = MAX_LINE if !%open;
    return string(as_text($value))
        if $type ne 'HASH' && $type ne 'ARRAY' || $depth > MAX_DEPTH || $budget < 0 || $open{ refaddr $value };

    local $open{ refaddr $value } = 1;
    my $json = $type eq 'HASH' ? object($value, $depth) : '[' . join(',', map { item($_, $depth + 1) } @$value) . ']';
    $budget -= length $json;
    return $json;
}

sub item { my ($value, $depth) = @_;
    return defined $value && !ref $value ? is_number($value) ? number($value) : string($value) : nested($value, $depth);
}

# \1 and \0, as JSON modules take them, and the booleans that those modules return; undef for anything else.
sub boolean { my ($value) = @_;
    my $ours = ref $value eq 'SCALAR' ? ($$value // '') =~ /\A[01]\z/
        : ref($value) =~ /\A(?:JSON::PP::Boolean|Types::Serialiser::Boolean|boolean)\z/;
    return $ours ? $$value ? 'true' : 'false' : undef;
}

sub as_text { my ($value) = @_;
    local ($@, $SIG{__DIE__});
    return boolean($value) // eval { "$value" } // sprintf '%s(0x%x)', ref $value, refaddr $value;
}

# A line's beginning and its optional context or tags, made to fit $room bytes: the longest string is cut, again and
# again; when only short ones are left, context and tags go.
sub shorten { my ($head, $extra, $room) = @_;
    $room -= length TRUNCATED;
    my $json = $head . $extra;
    while ((my $excess = length($json) - $room) > 0) {
        my ($start, $length) = longest_string($json);
        if ($length > KEPT) {
            my $kept = substr $json, $start, max(KEPT, int($length / 2), $length - $excess);
            $kept =~ s/(?<!\\)((?:\\\\)*)\\(?:u[0-9a-f]{0,3})?\z/$1/;    # not within an escape …
            $kept =~ s/[\xC0-\xFF][\x80-\xBF]*\z//;                      # … nor within a character
            substr $json, $start, $length, $kept;
        }
        elsif ($extra eq '') { last }
        else { ($json, $extra) = ($head, '') }
    }
    return $json . TRUNCATED;
}

# Where the longest string of some JSON text starts and how long it is, without its quotes; keys don't count. The group
# within a group is there because one alone stops after 32,766 rounds before Perl 5.30.
sub longest_string {
    my ($best, $length) = (0, 0);
    while ($_[0] =~ /"((?:(?:[^"\\]++|\\.){1,30000})*+)"(:?)/g) {
        ($best, $length) = ($-[1], $+[1] - $-[1]) if $+[1] - $-[1] > $length && !$2;
    }
    return ($best, $length);
}

1;
