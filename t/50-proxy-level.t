#!/usr/bin/perl
# Guards: pairs that are moved from a full worker to an empty one lose no byte, half-closed ones neither, nor when a worker dies in the middle of it; where all pipes are held by readers that stand still, others go on.
use strict;
use warnings;
use ChaosTest;
use Digest::SHA qw(sha256_hex);
use HyperTest;
use IO::Socket qw(SHUT_WR);
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $p = storm_proxy(workers => 2, log_level => 'debug');
my $moved = sub { return $p->{d}->count_log(qr/proxy-worker-\d\[\d+\] info moved .*why="asked for"/) };
my $moving = sub { return $p->{d}->count_log(qr/debug pair_state pair=\d+ LIVE>MOVING/) };

# All pairs to worker 1, which is levelled as soon as worker 0 is there again.
sub lean {
	my $old = $p->worker_pid(0);
	kill 'KILL', $old;
	wait_until { $p->worker_pid(0) != $old } 30 or die "not replaced:\n" . $p->{d}->log_tail;
	return;
}

# Many pairs in all manners of the load: both directions, one, half-closed, slow ones.
my $l = load($p, pairs => 120, churn => 2, rate => 200_000, seconds => 300, meet => 60);
for my $round (1 .. 3) {
	my $before = $moved->();
	lean();
	ok(wait_until(sub { $moved->() >= $before + 20 }, 30), "levelling $round: pairs are moved (" . ($moved->() - $before) . ')');
}

# It stands still with MOVE unread or half answered, and is killed
for my $round (1 .. 3) {
	my $before = $moving->();
	my $full = $p->worker_pid(1);
	my $old = $p->worker_pid(0);
	kill 'KILL', $old;
	wait_until { $p->worker_pid(0) != $old } 30 or die 'not replaced';
	kill 'STOP', $full if $round > 1;
	ok(wait_until(sub { $moving->() > $before }, 20), "killed while it moves $round: it was asked to");
	kill 'KILL', $full;
	wait_until { $p->worker_pid(1) != $full } 30 or die 'not replaced';
}
my @rescued = rescued_of($p);
cmp_ok($rescued[0], '>=', 6, "deaths with pairs: $rescued[0]");
is(end_load($l), 0, 'the load comes to its end');
my $sum = sum_of($l);
nothing_lost($sum, 120, 'moved pairs');
is($sum->{churn}{done}, $sum->{churn}{asked}, 'moved pairs: short ones beside them, too');
is($p->{d}->count_log(qr/ reason=worker_lost/), 0, 'none ended with worker_lost');

# When nothing differs much, nothing moves
wait_until { $p->{d}->count_log(qr/info ended pair=\d+ session=\w+ worker=/) >= $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/) } 20;
my $still = $moving->(); # pairs that end one after the other may have been a reason to the last
select undef, undef, undef, 1.2; # lasts: two ticks of the master
is($moving->(), $still, 'and it comes to rest');
is($p->{d}->stop, 0, 'it stops cleanly');

# --- all pipes are held ---
$p = proxy(workers => 1, token_timeout => 20, more => 'max_pipes = 3;');
# More than all socket buffers on the way may grow to
my $out = 'payload ' x (6 << 20);
my @held;

# Sends until nothing moves: both sockets and the pipe between them are full.
sub fill {
	my ($sock) = @_;
	my ($n, $idle) = (0, 0);
	$sock->blocking(0);
	while ($n < length $out && $idle < 10) {
		my $k = syswrite $sock, $out, 65536, $n;
		$k ? ($n += $k, $idle = 0) : ($idle++, select undef, undef, undef, 0.02);
	}
	return $n;
}
for my $i (0 .. 4) {
	my ($a, $b, $session) = $p->pair;
	push @held, { a => $a, b => $b, session => $session, sent => fill($a) };
	cmp_ok($held[-1]{sent}, '<', length $out, "reader $i stands still") or last;
}
my ($a, $b, $session) = $p->pair;
joined($a, $b, 'readers that stand still hold all pipes: another pair goes on');
my $big = substr $out, 0, 1 << 20;
my $pid = fork // die "fork: $!";
if (!$pid) { send_all($a, $big); shutdown $a, SHUT_WR; require POSIX; POSIX::_exit(0) }
my ($got, $how) = read_to_end($b, 20);
waitpid $pid, 0;
is(sha256_hex($got), sha256_hex($big), 'with each of a million bytes');
is($how, 'eof', 'and a clean end');
isnt($p->{d}->wait_log(qr/proxy-worker-0\[\d+\] warn no_pipe /), undef, 'the log says that bytes are copied');
close $_ for $a, $b;
for my $h (@held) {
	shutdown $h->{a}, SHUT_WR;
	my ($in, $end) = read_to_end($h->{b}, 20);
	is("$end " . sha256_hex($in), 'eof ' . sha256_hex(substr $out, 0, $h->{sent}), 'who stood still gets all of it, too');
	close $_ for $h->{a}, $h->{b};
}
is(($p->wait_ended($_) // {})->{reason}, 'closed', 'a clean end in the log') for $session, map { $_->{session} } @held;
is($p->{d}->stop, 0, 'it stops cleanly, too');
hyper_done();
