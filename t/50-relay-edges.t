#!/usr/bin/perl
# Guards: bytes that came before the joining, bytes that come together with an end or a reset, and urgent bytes arrive.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Socket qw(MSG_OOB);
use Test::More;

both_modes(sub {
	my ($d, $mode) = @_;
	my ($got, $how);

	# All of one side's life is over before the other one comes.
	my $a = connect_to($d->ready('a'));
	send_all($a, 'early ' x 1000);
	half_close($a);
	my $b = connect_to($d->ready('b'));
	my $id = ++$d->{pairs};
	($got, $how) = read_to_end($b);
	is($how, 'eof', "$mode: the end that came before the joining");
	ok($got eq 'early ' x 1000, "$mode: after the bytes that came before it");
	send_all($b, 'late');
	close $b;
	is((read_to_end($a))[0], 'late', "$mode: and the answer");
	is(end_of($d, $id)->{reason}, 'closed', "$mode: a clean end");

	# The engine sleeps while bytes and end arrive: one event tells it both.
	for my $round (1 .. 10) {
		($a, $b, $id) = pair($d);
		$d->signal('STOP');
		send_all($a, 'z' x (10_000 * $round));
		half_close($a);
		$d->signal('CONT');
		($got, $how) = read_to_end($b);
		ok($how eq 'eof' && length $got == 10_000 * $round, "$mode: bytes and end in one event, round $round");
		close $b;
		is(end_of($d, $id)->{reason}, 'closed', "$mode: a clean end");
	}
	($a, $b, $id) = pair($d);
	$d->signal('STOP');
	send_all($a, 'z' x 10_000);
	reset_socket($a);
	$d->signal('CONT');
	($got, $how) = read_to_end($b);
	is($how, 'reset', "$mode: bytes and reset in one event");
	is(length $got, 10_000, "$mode: the bytes first");

	# TCP urgent data must not stop a stream.
	($a, $b, $id) = pair($d);
	send_all($a, 'before ');
	send $a, '!', MSG_OOB;
	send_all($a, ' behind');
	is(read_exactly($b, 15), 'before ! behind', "$mode: an urgent byte keeps its place");
	send_all($a, 'x' x 100_000);
	half_close($a);
	is(length((read_to_end($b))[0]), 100_000, "$mode: and the stream goes on");
	send_all($b, 'done');
	close $b;
	is((read_to_end($a))[0], 'done', "$mode: in both directions");
	is(end_of($d, $id)->{reason}, 'closed', "$mode: a clean end");

	# Stopped by us: never a clean end.
	($a, $b, $id) = pair($d);
	is($d->stop, 0, "$mode: stopped");
	is((read_to_end($_))[1], 'reset', "$mode: both sides see a reset") for $a, $b;
	is(end_of($d, $id)->{reason}, 'stopped', "$mode: the reason says so");
});
