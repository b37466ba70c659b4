#!/usr/bin/perl
# Guards: a worker that is killed costs nobody anything: who is parked still meets, pairs live on, the slot is filled again.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 2, token_timeout => 20);
close $_ for $p->pair;
$p->note_fds;

# Kills the process of a slot and waits for the next generation.
sub kill_worker {
	my ($slot, $signal) = @_;
	my $old = $p->worker_pid($slot);
	kill $signal, $old;
	wait_until { ($p->worker_pid($slot) // 0) != $old } 30 or die "worker $slot was not replaced:\n" . $p->{d}->log_tail;
	return;
}

# Killed while idle
kill_worker(0, 'KILL');
isnt($p->{d}->wait_log(qr/worker_exited worker=0 .*signal=9/), undef, 'the log says what happened');
is(scalar(children_of($p->{d}->pid)), 2, 'a worker killed while idle is replaced');
close $_ for $p->pair(workers => [ 0, 0 ]);
ok(1, 'and the new one serves');

# Killed while B is parked
for my $second (0, 1) {
	my ($token, $session) = $p->broker;
	my $b = $p->at(1, sub { $p->come($token) });
	is($p->wait_parked($session), 1, 'B is parked by worker 1');
	kill_worker(1, 'KILL');
	my $a = $p->at($second, sub { $p->come($token . 'hello') });
	$p->wait_pair($session);
	is(read_exactly($b, 5), 'hello', "the worker that accepted B was killed: B meets A at worker $second");
	joined($a, $b, 'and both sides talk');
	close $_ for $a, $b;
}

# Killed with a pair: that one goes on at another worker, and others do not notice
my ($a0, $b0, $s0) = $p->pair(workers => [ 1, 0 ]);
my ($a1, $b1, $s1) = $p->pair(workers => [ 0, 1 ]);
kill_worker(0, 'KILL');
isnt($p->{d}->wait_log(qr/info resume pair=\d+ session=$s0 worker=\d/), undef, 'a pair of the killed worker goes on elsewhere');
joined($a0, $b0, 'and lives');
joined($a1, $b1, 'the pair of the other worker lives');
close $_ for $a0, $b0, $a1, $b1;
is($p->wait_ended($_)->{reason}, 'closed', 'to its own end') for $s0, $s1;

# A frozen one: found by its heartbeat
my ($a2, $b2, $s2) = $p->pair(workers => [ 0, 1 ]);
my $frozen = $p->worker_pid(1);
stop_process($frozen);
my ($token, $session) = $p->broker;
my $first = $p->come($token);
my $other = $p->come($token);
is(($p->wait_pair($session))[1], 0, 'while a worker stands still the other one accepts');
joined($first, $other, 'and pairs');
isnt($p->{d}->wait_log(qr/worker_killed worker=1 pid=$frozen .*heartbeat/, 15), undef, 'the frozen one is killed');
joined($a2, $b2, 'its pair goes on');
wait_until { $p->worker_pid(1) != $frozen } 30;
isnt($p->worker_pid(1), $frozen, 'and replaced');
close $_ for $a2, $b2, $first, $other;
is($p->wait_ended($s2)->{reason}, 'closed', 'to its own end');

$p->settled;
$p->fds_are_back('all deaths');
is($p->{d}->count_log(qr/proxy\[\d+\] info ended pair=/), $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/), 'one end for each pair');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
