#!/usr/bin/perl
# Guards: one pair that moves bytes without pause leaves 200 others their turn, and none of them starves.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;
use Time::HiRes qw(time);

both_modes(sub {
	my ($d, $mode) = @_;
	my ($a, $b, $id) = pair($d);
	my @others = map { [ pair($d) ] } 1 .. 200;
	my @kids;

	# A writer and a reader of their own keep the busy pair busy.
	for my $job (sub { 1 while syswrite $a, 'b' x 262144 }, sub { 1 while sysread $b, my $data, 262144 }) {
		my $pid = fork // die "fork: $!";
		if (!$pid) {
			$job->();
			POSIX::_exit(0);
		}
		push @kids, $pid;
	}
	my ($served, $worst) = (0, 0);
	for my $round (1 .. 5) {
		send_all($_->[0], "round $round") for @others;
		my $since = time;
		$served += read_exactly($_->[1], 7) eq "round $round" for @others;
		$worst = time - $since if time - $since > $worst;
	}
	is($served, 1000, "$mode: every pair was served in every round");
	cmp_ok($worst, '<', 5 * slow_factor(), "$mode: soon");
	kill 'KILL', @kids;
	waitpid $_, 0 for @kids;
	close $_ for $a, $b;
	cmp_ok(end_of($d, $id)->{ab}, '>', 1 << 20, "$mode: the busy pair was busy");
	close $_ for map { @$_[0, 1] } @others;
	end_of($d, $_->[2]) for @others;
});
