#!/usr/bin/perl
# Guards: a reset is seen as a reset on the other side, after what came before it, and never as a clean end.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;

both_modes(sub {
	my ($d, $mode) = @_;
	for my $first (0, 1) {
		my $who = "$mode, side " . ($first ? 'b' : 'a');
		my $turn = sub { my ($a, $b, $id) = pair($d); return $first ? ($b, $a, $id) : ($a, $b, $id) };

		my ($x, $y, $id) = $turn->();
		reset_socket($x);
		is((read_to_end($y))[1], 'reset', "$who: an idle pair");
		is(end_of($d, $id)->{reason}, 'reset', "$who: the reason says so");

		($x, $y, $id) = $turn->();
		send_all($x, 'last words');
		is(read_exactly($y, 10), 'last words', "$who: bytes before it arrive");
		send_all($y, 'reply');
		is(read_exactly($x, 5), 'reply', "$who: and the reply");
		reset_socket($x);
		is((read_to_end($y))[1], 'reset', "$who: then the reset");

		# After a half-close the stream that is still open is the one that breaks.
		($x, $y, $id) = $turn->();
		half_close($x);
		is((read_to_end($y))[1], 'eof', "$who: a half-close first");
		reset_socket($y);
		is((read_to_end($x))[1], 'reset', "$who: a reset of the half that was open");
		is(end_of($d, $id)->{reason}, 'reset', "$who: the reason says so");

		# Its reader is stalled and the engine's carrier full: the reset is noticed all the same.
		($x, $y, $id) = $turn->();
		$x->blocking(0);
		my $filled = wait_until {
			my $n = syswrite $x, 'z' x 65536;
			!defined $n && !wait_until { defined syswrite $x, 'z' x 65536 } 0.3;
		};
		ok($filled, "$who: writer stopped by a stalled reader");
		reset_socket($x);
		my $end = end_of($d, $id);
		is($end->{reason}, 'reset', "$who: its reset ends the pair although nobody reads");
		is((read_to_end($y))[1], 'reset', "$who: the stalled reader sees a reset, not an end");
	}
	my ($a, $b, $id) = pair($d);
	close $b;
	send_all($a, 'to nobody') for 1 .. 2;
	ok(wait_until { send_all($a, 'x') == 0 || (end_of($d, $id, 0) // {})->{reason} }, "$mode: the writer to a closed peer");
	is(end_of($d, $id)->{reason}, 'reset', "$mode: is told by a reset");
});
