#!/usr/bin/perl
# Guards: a silent pair and a half-closed one end in time with their reasons, in the master's log as in the worker's; one that is used stays.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time sleep); # lasts: silence is what is tested

# Ended with this reason, once in each log, and seen as a reset by these.
sub ended_with {
	my ($p, $session, $reason, $socks, $what) = @_;
	my $d = $p->{d};
	ok((wait_until { $d->count_log(qr/ proxy-worker-\d+\[\d+\] info ended .*session=$session reason=$reason /) == 1 } 20 * slow_factor()),
		"$what: $reason, says the worker") or diag($d->log_tail);
	ok((wait_until { $d->count_log(qr/ proxy\[\d+\] info ended .*session=$session .*reason=$reason /) == 1 }), "$what: $reason, says the master");
	for my $s (@$socks) {
		my (undef, $end) = read_to_end($s);
		is($end, 'reset', "$what: a reset, no end");
	}
	return;
}

my $idle = 1.5 * slow_factor(); # seconds: whatever a busy machine leaves between two bytes of the pair that is used
for my $mode ('', 'copy_mode = true; ', 'copy_small_messages = false; ') {
	my $p = proxy(more => "${mode}idle_timeout = $idle; half_closed_timeout = 0.5;");
	my ($a, $b, $session) = $p->pair;
	my ($c, $e, $used) = $p->pair;
	my ($f, $g, $half) = $p->pair;
	my ($since, $ok) = (time, 1);
	send_all($f, 'last words');
	shutdown $f, 1;
	is(read_exactly($g, 10), 'last words', "half closed: what came before");
	# Bytes of one direction are enough.
	while (time - $since < 2 * $idle) {
		send_all($c, 'x');
		$ok &&= read_exactly($e, 1) eq 'x';
		sleep 0.1; # lasts: it is used for twice the time limit
	}
	ok($ok, 'a pair that is used moves bytes');
	ended_with($p, $session, 'idle', [ $a, $b ], 'silent');
	ended_with($p, $half, 'half_closed', [ $f ], 'half closed');
	is($p->{d}->count_log(qr/ ended .*session=$used/), 0, 'the pair that is used stays');
	ended_with($p, $used, 'idle', [ $c, $e ], 'then silent');
	is($p->{d}->stop, 0, 'it stops cleanly');
}

# By default nobody's silence ends a pair.
my $p = proxy();
my ($a, $b, $session) = $p->pair;
sleep 3; # lasts: the silence that must not matter
send_all($a, 'still here');
is(read_exactly($b, 10), 'still here', 'without the settings a silent pair stays');
close $_ for $a, $b;
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
