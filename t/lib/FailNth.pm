# FailNth.pm - lets the n-th call of a kind fail in a running program, and walks n upward (t/fail/failnth.c does the failing)
#
#   my $page = fail_page('proxy');                      # before the program is started ...
#   my $p = with_pages($page, sub { proxy() });         # ... with the object preloaded
#   fail_walk($page, 'mem', scenario => sub { ... "ok" or why not }, settled => sub { true when all is as before });
#
# Always true: a scenario that began with a call armed to fail is followed by one without, which must work; the walk ends
# when a scenario has made fewer calls than n. The short walk takes some n of all, evenly; HYPER_LONG=1 takes each.
package FailNth;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;
use Test::More;

our @EXPORT = qw(fail_page with_pages fail_walk);
use constant { DIE_BEFORE => -1, DIE_BEHIND => -2 }; # in the place of an errno

my @kinds = qw(mem fd kernel send recv msg splice disk pipe);
my %bit = map { $kinds[$_] => 1 << $_ } 0 .. $#kinds;
my $LEN = 4096;

# The page of a program, or of a worker: fail_page('proxy', 'worker') after fail_page('proxy').
sub fail_page {
	my ($name, $child) = @_;
	plan skip_all => "gcc's sanitizer wants to be loaded first: use clang's" if `ldd '@{[ build() ]}/bin/proxy'` =~ /libasan/;
	my $base = tmp() . "/fail-$name";
	my $file = write_file($base . ($child ? ".$child" : ''), pack('a4 x' . ($LEN - 4), 'FAIL'));
	open my $fh, '+<', $file or die "$file: $!";
	return bless { name => $child ? "$name $child" : $name, file => $file, base => $base, fh => $fh }, 'FailNth';
}

# Runs the code; programs it starts have the object preloaded.
sub with_pages {
	my ($page, $code) = @_;
	local $ENV{HYPER_TEST_FAIL} = $page->{base};
	local $ENV{LD_PRELOAD} = build() . '/t/fail/failnth.so';
	return $code->();
}

sub peek {
	my ($page, $at, $format, $len) = @_;
	sysseek $page->{fh}, $at, 0 or die $!;
	sysread($page->{fh}, my $data, $len) == $len or die "page: $!";
	return unpack $format, $data;
}
sub poke { my ($page, $at, $data) = @_; sysseek $page->{fh}, $at, 0 or die $!; syswrite($page->{fh}, $data) == length $data or die $!; return }

# From the n-th call of these kinds on, `times` calls fail (with this errno instead of the one that fits).
sub arm {
	my ($page, $kinds, $n, $times, $errno) = @_;
	my $bits = 0;
	$bits |= $bit{$_} // die "no kind $_" for split /,/, $kinds;
	$page->poke(8, pack 'L5 l', $bits, $n, $times // 1, 0, 0, $errno // 0);
	$page->poke(96, "\0" x (64 + 24 * 8));
	$page->poke(4, pack 'L', 1);
	return;
}
sub disarm { $_[0]->poke(4, pack 'L', 0); return }
sub count { return $_[0]->peek(20, 'L', 4) }
sub failed { return $_[0]->peek(24, 'L', 4) }
sub blocks { return $_[0]->peek(32, 'q', 8) }
sub seen { my ($page, $kind) = @_; my ($i) = grep { $kinds[$_] eq $kind } 0 .. $#kinds; return ($page->peek(40, 'L9', 36))[$i] }

# What failed, and by whom it was called: our own functions, innermost first.
sub where {
	my ($page, $program) = @_;
	my ($what, @frames) = $page->peek(96, 'Z64 Q24', 64 + 24 * 8);
	my ($base) = $page->peek(160 + 24 * 8, 'Q', 8);
	my $bin = build() . '/bin/' . ($program // ($page->{name} =~ /^(?:proxy|sd)/ ? $& : 'hyper'));
	my @ours = map { sprintf '%x', $_ - $base - 1 } grep { $_ && $_ >= $base && $_ < $base + 0x4000000 } @frames;
	return $what if !@ours;
	my @lines = split /\n/, `addr2line -f -s -e '$bin' @ours 2>/dev/null`;
	return "$what: " . join ' < ', map { "$lines[2 * $_] " . ($lines[2 * $_ + 1] // '') } 0 .. ($#lines - 1) / 2;
}

# Which n of `count` a walk takes.
sub steps {
	my ($count, $short, $first) = @_;
	return 1 .. $count if $ENV{HYPER_LONG} || $count <= $short;
	my $stride = ($count - 1) / ($short - 1);
	my %n = map { $_ => 1 } (map { 1 + int($_ * $stride) } 0 .. $short - 1), 1 .. $first;
	return sort { $a <=> $b } keys %n;
}

# Options: scenario => code that returns 'ok' or why not ('silent...' is never right); settled => code; before => code that runs while nothing fails; runs => code: the
# program lives; short => how many n (20), first => and all up to this one; times, errno as arm(); allowed => what a failed scenario may say;
# excused => calls (by where()) after whose failure nothing may be heard until a deadline that is longer than the walk's patience.
sub fail_walk {
	my ($page, $kinds, %opt) = @_;
	my $what = "$page->{name}: " . ($opt{what} // $kinds) . ($opt{times} && $opt{times} > 1 ? " ($opt{times} calls)" : '');
	my (%said, @bad);
	my $before = $opt{before} // sub { };
	my $scenario = sub { $before->(); return $opt{scenario}->() };
	$scenario->() for 1 .. 3; # caches are warm
	$before->();
	$page->arm($kinds, 0x7fffffff);
	my $first = $opt{scenario}->();
	my $count = $page->count;
	$page->disarm;
	is($first, 'ok', "$what: without a failure it works") or return;
	if (!$count) {
		note("$what: no such call comes by");
		return;
	}
	$opt{settled}->() if $opt{settled};
	my $blocks = $page->blocks;
	my ($done, $reached) = (0, 0);
	for my $n (steps($count, $opt{short} // 20, $opt{first} // 0)) {
		$before->();
		$page->arm($kinds, $n, $opt{times}, $opt{errno});
		my $said = $opt{scenario}->();
		$page->disarm;
		$done++;
		$reached++ if $page->failed;
		$said{$said}++;
		my $fault = $said =~ /^silent/ && !($opt{excused} && $page->where($opt{program}) =~ $opt{excused}) ? $said : $said ne 'ok' && $opt{allowed} && $said !~ $opt{allowed} ? "said $said" : undef;
		$fault //= 'the program ended' if !$opt{runs}->();
		if (!$fault) {
			my $again = $scenario->();
			$fault = "the next one without a failure: $again" if $again ne 'ok';
		}
		$fault //= 'not as it was before' if $opt{settled} && !$opt{settled}->();
		push @bad, "n=$n $fault (this one: $said): " . $page->where($opt{program}) if $fault;
		last if !$opt{runs}->() || @bad > 15;
	}
	my $grown = $page->blocks - $blocks;
	ok(!@bad, "$what: $done of $count, $reached failed") or diag(join "\n", @bad);
	note("$what: ", join ', ', map { "$said{$_} $_" } sort keys %said);
	note("$what: blocks grew by $grown in $done rounds");
	return { done => $done, grown => $grown, said => \%said };
}

1;
