#!/usr/bin/perl
# Guards: at whatever moment of a pair's life its worker dies, another one goes on and both peers see what they would have seen: every byte, a clean end as a clean end, a reset as a reset.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $p;

# A proxy of its own for each part: a worker that dies again and again comes back later and later, except where it is the only one.
sub begin {
	my ($workers) = @_;
	$p = storm_proxy(workers => $workers, log_level => 'debug', hyper => undef);
	close $_ for $p->pair;
	$p->note_fds;
	return;
}

# All that it did ended well.
sub finish {
	my ($what) = @_;
	$p->settled;
	$p->fds_are_back($what);
	is($p->{d}->count_log(qr/proxy\[\d+\] info ended .*reason=worker_lost/), 0, "$what: none ended with worker_lost");
	is($p->{d}->count_log(qr/proxy\[\d+\] info ended pair=/), $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/), "$what: one end for each pair");
	is($p->{d}->stop, 0, "$what: it stops cleanly");
	return;
}


# Kills workers and waits until their slots are filled again.
sub kill_workers {
	my (@slots) = @_;
	my %old = map { $_ => $p->worker_pid($_) } @slots;
	kill 'KILL', values %old;
	for my $slot (@slots) {
		wait_until { ($p->worker_pid($slot) // 0) != $old{$slot} } 30 or die "worker $slot was not replaced:\n" . $p->{d}->log_tail;
	}
	return;
}

# Writes in a process of its own, and ends that direction.
sub write_behind {
	my ($s, $data) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	send_all($s, $data);
	shutdown $s, 1;
	POSIX::_exit(0);
}

# More than all buffers on the way hold
my $block = join '', map { pack 'N', $_ } 1 .. 750_000;
my $much = join '', map { "block $_" . $block } 1 .. 8;

# With a worker that lives
begin(2);
# Idle
{
	my ($a, $b, $s) = $p->pair(workers => [ 1, 0 ]);
	joined($a, $b, 'idle: before');
	kill_workers(0);
	joined($a, $b, 'idle: after its worker was killed');
	kill_workers(0, 1);
	joined($a, $b, 'idle: after all workers were killed at once');
	close $a;
	is((read_to_end($b))[1], 'eof', 'idle: a clean end is one');
	close $b;
	is($p->wait_ended($s)->{reason}, 'closed', 'idle: also in the log');
}

# Between PAIR and PAIRED
{
	my ($token, $session) = $p->broker;
	my $b = $p->at(0, sub { $p->come($token) });
	$p->wait_parked($session);
	stop_process($_) for $p->worker_pid(1), $p->{d}->pid;
	my $a = $p->arrive(0, $token . 'glued');
	stop_process($p->worker_pid(0));
	kill 'CONT', $p->{d}->pid;
	$p->wait_pair($session);
	kill_workers(0);
	kill 'CONT', $p->worker_pid(1);
	is(read_exactly($b, 5), 'glued', 'between PAIR and PAIRED: what was glued to the token arrives');
	joined($a, $b, 'between PAIR and PAIRED: both talk');
	close $_ for $a, $b;
	is($p->wait_ended($session)->{reason}, 'closed', 'between PAIR and PAIRED: a clean end');
}

finish('another worker');

# The only worker: a new one goes on, at once, since pairs wait for it: this one always does
begin(1);
my ($near, $far) = $p->pair;
# Full pipes, a reader that does not read, an end that waits behind all that
{
	my ($a, $b, $s) = $p->pair;
	my $writer = write_behind($a, $much);
	wait_until { ProxyTest::is_blocked($writer) } or die 'the writer does not wait';
	for my $round (1 .. 3) {
		kill_workers(0);
		is(read_exactly($b, 200_000), substr($much, 200_000 * ($round - 1), 200_000), "full pipes: the next bytes after death $round");
	}
	my ($rest, $how) = read_to_end($b, 30);
	ok($rest eq substr($much, 600_000), 'full pipes: all the rest') or diag(length($rest), ' of ', length($much) - 600_000);
	is($how, 'eof', 'full pipes: and the end');
	waitpid $writer, 0;
	# half closed now
	kill_workers(0);
	$writer = write_behind($b, $much);
	is(read_exactly($a, 100_000), substr($much, 0, 100_000), 'half closed: the other direction goes on');
	kill_workers(0);
	($rest, $how) = read_to_end($a, 30);
	ok($rest eq substr($much, 100_000), 'half closed: to its last byte');
	is($how, 'eof', 'half closed: and its end');
	waitpid $writer, 0;
	close $_ for $a, $b;
	my $end = $p->wait_ended($s);
	is($end->{reason}, 'closed', 'half closed: a clean end in the log');
	# what was delivered in a worker's last step may be uncounted: a pipe's content for each of the five deaths at most
	my $short = 2 * length($much) - $end->{bytes_ab} - $end->{bytes_ba};
	ok($short >= 0 && $short <= 5 * 262_144, "half closed: the log counts the bytes of all its workers together ($short short)");
}

# What a peer did while its worker stood still and then died
for my $case ([ 'ends', 'eof', sub { shutdown $_[0], 1 } ], [ 'closes', 'eof', sub { close $_[0] } ], [ 'resets', 'reset', sub { reset_socket($_[0]) } ]) {
	my ($what, $how, $code) = @$case;
	my ($a, $b, $s) = $p->pair;
	joined($a, $b, "a peer $what: before");
	stop_process($p->worker_pid(0));
	send_all($a, 'last words') if $how eq 'eof';
	$code->($a);
	kill_workers(0);
	my ($got, $end) = read_to_end($b);
	is("$got $end", ($how eq 'eof' ? 'last words' : '') . " $how", "a peer $what and the worker dies before it knows: seen as it was");
	close $b;
	my $reason = $p->wait_ended($s)->{reason};
	is($reason, $how eq 'eof' ? 'closed' : 'reset', "a peer $what: so does the log");
	close $a if $what eq 'ends';
}

# ... and right after the worker knew: whichever comes first
for my $round (1 .. 12) {
	my ($a, $b, $s) = $p->pair;
	my ($how, $worker) = ($round % 2 ? 'reset' : 'eof', $p->worker_pid(0));
	$how eq 'reset' ? reset_socket($a) : close $a;
	select undef, undef, undef, 0.0004 * int($round / 2); # lasts: the moment to be hit moves
	kill 'KILL', $worker;
	wait_until { $p->worker_pid(0) != $worker } 30 or die 'not replaced';
	is((read_to_end($b))[1], $how, "round $round: $how, and the worker dies at that moment");
	close $b;
	$p->wait_ended($s);
}

joined($near, $far, 'the pair that lived through all this');
close $_ for $near, $far;
finish('a new worker');

# The same under load
$p = storm_proxy(workers => 4);
sub under_load {
	my ($what, $code) = @_;
	my $l = load($p, pairs => 200, churn => 2, rate => 100_000, seconds => 300, meet => 60);
	my ($times, $pairs) = rescued_of($p);
	$code->($l);
	ok($l->is_running, "$what: the load runs");
	is(end_load($l), 0, "$what: and comes to its end");
	my $sum = sum_of($l);
	nothing_lost($sum, 200, $what);
	is($sum->{churn}{done}, $sum->{churn}{asked}, "$what: short pairs, too");
	my ($times2, $pairs2) = rescued_of($p);
	cmp_ok($pairs2 - $pairs, '>', 0, "$what: " . ($pairs2 - $pairs) . ' pairs were rescued in ' . ($times2 - $times) . ' deaths');
	return $sum;
}

my $sum = under_load('a worker that stands still until it is killed', sub {
	my $before = $p->{d}->count_log(qr/ error worker_killed .*heartbeat/);
	my @w = living_workers($p);
	hit('STOP', $w[0]);
	ok(wait_until(sub { $p->{d}->count_log(qr/ error worker_killed .*heartbeat/) > $before }, 15), 'a worker that stands still until it is killed: it is');
});
cmp_ok($sum->{kept}{stall_ms}, '>', 1500, 'a worker that stands still until it is killed: pairs waited for that');
cmp_ok($sum->{kept}{stall_ms}, '<', 8000 * slow_factor(), 'a worker that stands still until it is killed: and no longer than that');
under_load('a rescuer that dies before it is through', sub {
	hit('KILL', $_) for living_workers($p);
	my $pids = '';
	# more rounds where others keep the machine busy: a worker that is hit before it is ready had no pairs
	for my $round (1 .. 100) {
		last if $round > 25 && (rescued_of($p))[0] >= 8;
		# one comes back at once for the pairs that wait; it starts, gets them, and dies somewhere on the way
		wait_until { living_workers($p) && join(' ', living_workers($p)) ne $pids } or die 'no worker comes back';
		select undef, undef, undef, (0.01 + 0.002 * ($round % 50)) * slow_factor(); # lasts: the moment to be hit moves
		$pids = join ' ', living_workers($p);
		hit('KILL', $_) for split / /, $pids;
	}
	cmp_ok((rescued_of($p))[0], '>=', 8, 'a rescuer that dies before it is through: many had pairs');
	my %n = map { $_ => 1 } $p->log_text =~ /info rescue worker=\d+ pairs=(\d+)/g;
	cmp_ok(scalar keys %n, '>=', 3, 'a rescuer that dies before it is through: not always all of them: ' . join(' ', sort { $a <=> $b } keys %n));
});
under_load('all workers dead for two seconds', sub {
	my ($end, $n) = (time + 2, 0);
	while (time < $end) {
		$n += hit('KILL', $_) for living_workers($p);
		select undef, undef, undef, 0.001; # lasts: the beat of the kills
	}
	cmp_ok($n, '>=', 4, "all workers dead for two seconds: $n were killed");
});
hyper_done();
