# The encoder: what it writes is JSON that reads back equal, whatever it is given.

use strict;
use warnings;
use lib 'lib';
use JSON::PP ();
use MonitoringSDK ();
use Test::More;

BEGIN {
    no strict 'refs';
    *$_ = MonitoringSDK::Encoder->can($_) for qw(MAX_LINE float number object shorten string tags);
}

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my $ffff = "\x{FFFD}";

my @texts = (
    [ 'plain',             'lot 4711',                    'lot 4711' ],
    [ 'empty',             '',                            '' ],
    [ 'quotes',            qq(a"b\\c/d),                  qq(a"b\\c/d) ],
    [ 'controls',          join('', map { chr } 1 .. 31), join('', map { chr } 1 .. 31) ],
    [ 'delete',            "\x7f",                        "\x7f" ],
    [ 'NUL',               "a\0b",                        "a${ffff}b" ],
    [ 'characters',        "\x{e9}\x{20ac}\x{1F600}",     "\x{e9}\x{20ac}\x{1F600}", 'flagged' ],
    [ 'UTF-8 bytes',       "\xc3\xa9\xe2\x82\xac",        "\x{e9}\x{20ac}" ],
    [ 'Latin-1, flagged',  "\xe9",                        "\x{e9}", 'flagged' ],
    [ 'ASCII, flagged',    "abc",                         "abc", 'flagged' ],
    [ 'invalid bytes',     "a\xffb\xe9",                  "a${ffff}b${ffff}" ],
    [ 'U+2028',            "\x{2028}",                    "\x{2028}" ],
    [ 'lone surrogate',    do { no warnings; "x\x{D800}y" }, "x${ffff}y" ],
    [ 'surrogate bytes',   "x\xed\xa0\x80y",              qr/\Ax$ffff+y\z/ ],
    [ 'beyond Unicode',    do { no warnings; "x\x{110000}y" }, "x${ffff}y" ],
    [ 'overlong bytes',    "\xc0\xaf",                    qr/\A$ffff+\z/ ],
);
for my $case (@texts) {
    my ($name, $given, $expected, $flagged) = @$case;
    utf8::upgrade($given) if $flagged;
    my $text = string($given);
    ok utf8::downgrade(my $copy = $text, 1), "$name: bytes";
    unlike $text, qr/[\x00-\x1f]/, "$name: no control character";
    my $back = $json->decode($text);
    ref $expected ? like($back, $expected, $name) : is($back, $expected, $name);
}
is string("\x{e9}\x{20ac}"), "\"\xc3\xa9\xe2\x82\xac\"", 'plain UTF-8, no escapes';

my $e = '9007199254740993';
my @numbers = (
    [ 0, '0' ], [ -5, '-5' ], [ 4711, '4711' ], [ 2**53, '9007199254740992' ], [ $e + 0, qq("$e") ], [ -$e, qq("-$e") ],
    [ 18446744073709551615, '"18446744073709551615"' ], [ 0.1, '0.1' ], [ 0.1 + 0.2, '0.30000000000000004' ],
    [ 1e15, '1e+15' ], [ 1e300, '1e+300' ], [ 1.5, '1.5' ], [ 123456789012345.4, '123456789012345.4' ],
    [ 5e-324, '4.94065645841247e-324' ], [ 9**9**9, 'null' ], [ -9**9**9, 'null' ], [ -sin(9**9**9), 'null' ],
    [ '007', '"007"' ], [ '1e3', '"1e3"' ], [ '', '""' ], [ !!1, defined &builtin::is_bool ? 'true' : '"1"' ],
);
for my $case (@numbers) {
    my ($value, $expected) = @$case;
    is object({ v => $value }), qq({"v":$expected}), "number $expected";
    is object({ v => [$value] }), qq({"v":[$expected]}), "number $expected in an array";
}
is float($e + 0), '9007199254740992.0', 'a metric beyond 2^53 is a double';
is float(50), '50';

# Either way of telling numbers says the same.
my $used_as_number = '12';
my $sum = $used_as_number + 1;
my $used_as_text = 12;
for my $value (1, 1.5, '1', 'x', $used_as_number, 2**60, -0.5) {
    is !!MonitoringSDK::Encoder->can('is_number')->($value), !!MonitoringSDK::Encoder::flags_say_number($value), "number or not: $value";
}
is tags({ b => !!0 }), defined &builtin::is_bool ? '{"b":"false"}' : '{"b":""}', 'tags hold text for a boolean';
my $number = 12;
object({ n => $number, l => [$number] });
is object({ n => $number }), '{"n":12}', "the caller's number stays one";

# What is neither text nor number.
{
    package Fatal;
    use overload '""' => sub { die "not today\n" };
    package Texty;
    use overload '""' => sub { "texty \"$_[0]{name}\"" };
    package Plain;
}
$@ = 'kept';
my $odd = $json->decode(object({
    code => sub { }, glob => \*STDOUT, regex => qr/x/, undef => undef, true => \1, false => \0, json => JSON::PP::true(),
    fatal => bless([], 'Fatal'), texty => bless({ name => 'T' }, 'Texty'), plain => bless({}, 'Plain'), ref => \'text', refref => \\1,
}));
is $@, 'kept', '$@ is left alone';
like $odd->{code}, qr/\ACODE\(/;
like $odd->{glob}, qr/\AGLOB\(/;
like $odd->{regex}, qr/x/;
like $odd->{fatal}, qr/\AFatal\(0x/;
like $odd->{plain}, qr/\APlain=HASH/;
like $odd->{ref}, qr/\ASCALAR/;
like $odd->{refref}, qr/\AREF/;
is $odd->{texty}, 'texty "T"';
is $odd->{undef}, undef;
ok $odd->{true} && !$odd->{false} && $odd->{json};
like tags({ c => [1], d => \1 }), qr/"c":"ARRAY\(0x/, 'tags hold text for a reference';

# Nesting and cycles.
my $deep = 'end';
$deep = { k => $deep } for 1 .. 12;
my ($depth, $at) = (0, $json->decode(object($deep)));
($at, $depth) = ($at->{k}, $depth + 1) while ref $at;
is $depth, 8, 'cut at depth 8';
like $at, qr/\AHASH\(/;
my %cycle = (a => 1);
$cycle{self} = \%cycle;
$cycle{list} = [ \%cycle, \%cycle ];
ok $json->decode(object(\%cycle)), 'a cycle ends';
my $wide = [ 1 .. 50 ];
$wide = [ ($wide) x 50 ] for 1 .. 6;
cmp_ok length object({ w => $wide }), '<', 20 * MAX_LINE, 'data that refer to themselves often end';

# Any bytes.
srand 4711;
for my $round (1 .. 2_000) {
    my $given = join '', map { chr int rand 256 } 1 .. int rand 12;
    utf8::upgrade($given) if $round % 2;
    my $text = object({ $given => $given, n => [$given] });
    eval { $json->decode($text); 1 } or fail("round $round: $@: $text"), last;
}
pass 'any bytes make JSON';

# Lines that are too long.
for my $case (
    [ 'message',  string('x' x 70_000) ],
    [ 'escapes',  string("\n\\\"\t" x 40_000) ],
    [ 'UTF-8',    string("\x{20ac}" x 50_000) ],
    [ 'controls', string("\x01" x 60_000) ],
    ) {
    my ($name, $message) = @$case;
    my $line = shorten(qq({"service":"s","message":$message), ',"context":{"k":"v"}', 65_000) . '}';
    cmp_ok length $line, '<=', 65_001, "$name: fits";
    cmp_ok length $line, '>', 64_000, "$name: no more is cut than need be";
    my $back = eval { $json->decode($line) };
    is_deeply [ @{$back}{qw(service truncated)}, $back->{context} ], [ 's', JSON::PP::true(), { k => 'v' } ], "$name: the rest stays";
}
my $two = $json->decode(shorten('{"m":' . string('a' x 60_000), ',"context":{"k":' . string('b' x 50_000) . '}', 65_000) . '}');
ok length $two->{m} > 20_000 && length $two->{context}{k} > 20_000, 'the longest is cut first, then the other';
my $many = object({ map { $_ => 'v' } 1 .. 20_000 });
is_deeply $json->decode(shorten('{"m":1', qq(,"context":$many), 65_000) . '}'), { m => 1, truncated => JSON::PP::true() },
    'many short strings: the context goes';

done_testing;
