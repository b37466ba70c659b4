#!/usr/bin/perl
# Guards: a party that came while the master could not answer is let go, and costs the other party nothing: it may come again.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $p = proxy(workers => 1, token_timeout => 30);
for my $who ('second', 'first') {
	my ($token, $session) = $p->broker;
	my $parked = $who eq 'second' ? $p->come($token) : undef;
	$p->wait_parked($session) if $parked;
	stop_process($p->{d}->pid);
	my $start = time;
	my $late = $p->come($token);
	my (undef, $how) = read_to_end($late, 10);
	is($how, 'eof', "the $who party: let go though the master has a copy of it");
	cmp_ok(time - $start, '>', 4, "the $who party: not before the master had its time");
	# What comes behind our end resets the connection: still it is no reset of the party that waits for us.
	is(syswrite($late, 'go on'), 5, 'it goes on sending') if $who eq 'second';
	close $late;
	kill 'CONT', $p->{d}->pid;
	my $n = $who eq 'second' ? 1 : 2;
	ok((wait_until { $p->{d}->count_log(qr/proxy\[\d+\] info refused conn=\d+ worker=0 reason=deadline/) == $n }), "the $who party: the master sees that it is late");
	$parked //= $p->come($token);
	$p->wait_parked($session) if $who eq 'first';
	joined($parked, $p->come($token), "the $who party: comes again with the same token and meets the other one");
}
hyper_done();
