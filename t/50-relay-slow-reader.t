#!/usr/bin/perl
# Guards: a reader that stops reading stops its writer, costs bounded memory, disturbs no other pair, and loses nothing.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;

both_modes(sub {
	my ($d, $mode) = @_;
	my ($a, $b, $id) = pair($d);
	my ($sent, $data) = (0, join '', map { chr($_ % 253) } 1 .. 65536);
	my $before = $d->rss;

	$a->blocking(0);
	my $stopped = wait_until {
		my $n = syswrite $a, substr($data, $sent % 65536);
		$sent += $n // 0;
		!defined $n && !wait_until { my $m = syswrite $a, substr($data, $sent % 65536); $sent += $m // 0; $m } 0.5;
	} 20;
	ok($stopped, "$mode: the writer is stopped after $sent bytes");
	cmp_ok($sent, '<', 64 << 20, "$mode: by the sockets' buffers");
	cmp_ok($d->rss - $before, '<', 8192 * slow_factor(), "$mode: the engine's memory did not grow");

	my ($c, $e, $id2) = pair($d);
	my $rounds = 0;
	for (1 .. 50) {
		send_all($c, 'ping');
		read_exactly($e, 4) eq 'ping' or last;
		send_all($e, 'pong');
		read_exactly($c, 4) eq 'pong' or last;
		$rounds++;
	}
	is($rounds, 50, "$mode: another pair is not disturbed");
	send_all($b, 'the other way');
	is(read_exactly($a, 13), 'the other way', "$mode: nor is the other direction of the same pair");

	half_close($a);
	my ($got, $how) = read_to_end($b);
	is($how, 'eof', "$mode: the reader goes on and comes to the end");
	is(length $got, $sent, "$mode: with every byte");
	ok($got eq substr($data x (1 + $sent / 65536), 0, $sent), "$mode: in order");
	close $b;
	is(end_of($d, $id)->{reason}, 'closed', "$mode: a clean end");
	close $_ for $c, $e;
	end_of($d, $id2);
});
