#!/usr/bin/perl
# Guards: a worker that dies with a socket in its hands, or with a message not read, costs that connection only: who is parked stays, and nothing is left over.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 1, token_timeout => 20);
close $_ for $p->pair;
$p->note_fds;


# Runs the code while the master stands still.
sub while_master_stops {
	my ($code) = @_;
	stop_process($p->{d}->pid);
	my $r = $code->();
	kill 'CONT', $p->{d}->pid;
	return $r;
}

sub wait_worker_replaced {
	my ($old) = @_;
	wait_until { $p->worker_pid(0) != $old } 30 or die "not replaced:\n" . $p->{d}->log_tail;
	return;
}

# The first party's ARRIVED is under way when its worker dies: the socket is in the message, so the master has it.
{
	my ($token, $session) = $p->broker;
	my $worker = $p->worker_pid(0);
	my $b = while_master_stops(sub {
		my $s = $p->arrive(0, $token);
		kill 'KILL', $worker;
		return $s;
	});
	is($p->wait_parked($session), 0, 'first party: parked by a worker that is dead');
	wait_worker_replaced($worker);
	my $a = $p->come($token);
	$p->wait_pair($session);
	joined($a, $b, 'first party: it meets the second one at the next worker');
	close $_ for $a, $b;
}

# The second party's is: the master has both sockets, the pair goes on at the next worker.
for my $round (1, 2) { # the master may see the message or the death first
	my ($token, $session) = $p->broker;
	my $b = $p->come($token);
	$p->wait_parked($session);
	my $worker = $p->worker_pid(0);
	my $a = while_master_stops(sub {
		my $s = $p->arrive(0, $token . 'early');
		kill 'KILL', $worker;
		wait_until { fds_of($worker) < 0 || read_file("/proc/$worker/stat") =~ /\) Z / } or die 'not dead';
		return $s;
	});
	$p->wait_pair($session);
	is(read_exactly($b, 5, 20), 'early', "second party, round $round: what came with its token arrives");
	joined($a, $b, "second party, round $round: both talk, at the next worker");
	wait_worker_replaced($worker);
	close $_ for $a, $b;
}

# Between PAIR and PAIRED: the worker has both, or could have had. So has the master: the pair goes on, the token is used.
{
	my ($token, $session) = $p->broker;
	my $b = $p->come($token);
	$p->wait_parked($session);
	my $worker = $p->worker_pid(0);
	my $a = while_master_stops(sub {
		my $s = $p->arrive(0, $token);
		stop_process($worker);
		return $s;
	});
	$p->wait_pair($session);
	kill 'KILL', $worker;
	joined($a, $b, 'between PAIR and PAIRED: it goes on at the next worker');
	wait_worker_replaced($worker);
	isnt((read_to_end($p->come($token), 5))[1], 'timeout', 'between PAIR and PAIRED: the token is used');
	isnt($p->{d}->wait_log(qr/refused conn=\d+ reason=unknown_token/), undef, 'and unknown');
	close $_ for $a, $b;
	is($p->wait_ended($session)->{reason}, 'closed', 'and it ends cleanly');
}

close $_ for $p->pair;
$p->settled;
$p->fds_are_back('all deaths');
is($p->{d}->count_log(qr/proxy\[\d+\] info ended pair=/), $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/), 'one end for each pair');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
