#!/usr/bin/perl
# Guards: a pair made by the proxy carries every byte both ways, idle or busy, half-closed or reset. HYPER_LONG=1: a minute each and 256 MiB.
use strict;
use warnings;
use Digest::SHA ();
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $long = $ENV{HYPER_LONG};
my $p = proxy(workers => 2, token_timeout => 4);
close $_ for ($p->pair)[ 0, 1 ];
$p->note_fds;

# Idle: nothing may end a pair that only waits
my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
Time::HiRes::sleep($long ? 60 : 1 + 4 * slow_factor()); # lasts: longer than the token, whose time must not count any more
joined($a, $b, 'idle, then a byte');
my ($end, $n) = (time + ($long ? 60 : 1), 0);
while (time < $end || $n <= 50) {
	send_all($a, 'x');
	last if read_exactly($b, 1) ne 'x';
	send_all($b, 'y');
	last if read_exactly($a, 1) ne 'y';
	$n++;
}
ok(time >= $end && $n > 50, 'busy with single bytes') or diag($n);
close $_ for $a, $b;

# Half-close, each way
for my $turn (0, 1) {
	my @s = ($p->pair)[ 0, 1 ];
	my ($x, $y) = $turn ? reverse @s : @s;
	send_all($x, 'question');
	shutdown $x, 1;
	is(join(' ', read_to_end($y)), 'question eof', "half-close $turn: every byte, then the end");
	send_all($y, 'answer ' x 10_000);
	close $y;
	is(length((read_to_end($x))[0]), 70_000, "half-close $turn: the whole answer");
	close $x;
}

# A reset is a reset
for my $turn (0, 1) {
	my @s = $p->pair;
	my ($x, $y) = $turn ? @s[ 1, 0 ] : @s[ 0, 1 ];
	reset_socket($x);
	is((read_to_end($y))[1], 'reset', "reset $turn: seen as a reset");
	is($p->wait_ended($s[2])->{reason}, 'reset', "reset $turn: and told to the master");
}

# Much, both ways at once, from two child processes
my $mib = $long ? 256 : 32;
($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
my @children;
for my $side ([ $a, 1 ], [ $b, 2 ]) {
	my ($s, $seed) = @$side;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		my $block = pack 'N*', map { $_ * 2654435761 * $seed & 0xffffffff } 1 .. 65_536;
		for my $i (1 .. $mib * 4) {
			substr $block, 0, 4, pack 'N', $i;
			send_all($s, $block) == length $block or POSIX::_exit(1);
		}
		shutdown $s, 1;
		POSIX::_exit(0);
	}
	push @children, $pid;
}
sub expected {
	my ($seed) = @_;
	my $sha = Digest::SHA->new(256);
	my $block = pack 'N*', map { $_ * 2654435761 * $seed & 0xffffffff } 1 .. 65_536;
	for my $i (1 .. $mib * 4) {
		substr $block, 0, 4, pack 'N', $i;
		$sha->add($block);
	}
	return $sha->hexdigest;
}
my %sha = map { $_ => Digest::SHA->new(256) } 1, 2;
my %from = (2 => $a, 1 => $b); # what the other side sent
$end = time + 120 * slow_factor();
while (%from && time < $end) {
	my $bits = '';
	vec($bits, fileno $_, 1) = 1 for values %from;
	last if select($bits, undef, undef, 10 * slow_factor()) <= 0;
	for my $seed (keys %from) {
		next if !vec($bits, fileno $from{$seed}, 1);
		my $r = sysread $from{$seed}, my $data, 262_144;
		$r ? $sha{$seed}->add($data) : delete $from{$seed};
	}
}
waitpid $_, 0 for @children;
is($sha{$_}->hexdigest, expected($_), "$mib MiB byte-exact, direction $_") for 1, 2;
close $_ for $a, $b;
my $ended = $p->wait_ended($session);
is("$ended->{reason} $ended->{bytes_ab} $ended->{bytes_ba}", join(' ', 'closed', ($mib * 1024 * 1024) x 2), 'the end counts them all');

$p->settled;
$p->fds_are_back('all pairs');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
