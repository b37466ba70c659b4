#!/usr/bin/perl
# Guards: an upgrade in place costs no pair, no pairing and no byte; a failed one changes nothing and says why.
use strict;
use warnings;
use ChaosTest;
use File::Copy qw(copy move);
use HyperTest;
use POSIX ();
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

# A program of its own, to be replaced.
my $program = tmp() . '/upgraded-proxy';

sub install { my ($from) = @_; unlink $program; copy($from, "$program.new") or die "copy: $!"; chmod 0755, "$program.new"; move("$program.new", $program); return }
sub install_text { my ($text) = @_; unlink $program; write_file($program, $text); chmod 0755, $program; return }

install(program('proxy'));
my $socket = tmp() . '/admin.sock';
my $p = storm_proxy(workers => 2, program => $program, hyper => undef, outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $base = 'http://127.0.0.1:' . $p->{d}->ready('metrics_port');

# One sample of the metrics.
sub metric {
	my ($name) = @_;
	my ($code, $text) = run_program([ 'curl', '-sS', '--noproxy', '*', '--max-time', 20, "$base/metrics" ]);
	return $text =~ /^\Q$name\E (\S+)$/m ? $1 : "none ($code)";
}

sub verb { return $p->verb(@_) }

sub upgraded { return $p->{d}->count_log(qr/proxy\[\d+\] info upgraded /) }
sub readies  { return $p->{d}->count_log(qr/proxy\[\d+\] info ready /) }

# Sends USR2 and waits until the new one serves.
sub upgrade {
	my ($what) = @_;
	my ($n, $r) = (upgraded(), readies());
	$p->{d}->signal('USR2');
	wait_until { upgraded() > $n && readies() > $r } 30 or die "$what: no upgrade:\n" . $p->{d}->log_tail;
	return;
}

sub failed {
	my ($what, $re) = @_;
	my $n = $p->{d}->count_log(qr/ error upgrade_failed /);
	my $before = upgraded();
	$p->{d}->signal('USR2');
	ok(wait_until(sub { $p->{d}->count_log(qr/ error upgrade_failed /) > $n }, 30), "$what: it fails") or diag($p->{d}->log_tail);
	my ($why) = reverse $p->log_text =~ / error upgrade_failed why="([^"]*)"/g;
	like($why, $re, "$what: and says why");
	is(upgraded(), $before, "$what: nothing was executed");
	return;
}

my $pid = $p->{d}->pid;

# One of each kind lives through it
{
	my ($a, $b, $s) = $p->pair;
	joined($a, $b, 'a pair: before');
	my ($token, $parked) = $p->broker;
	my $first = $p->come($token);
	$p->wait_parked($parked);
	my ($issued) = $p->broker;
	my $port = $p->{port};
	unlink $program;
	install(program('proxy'));
	upgrade('one of each kind');
	is($p->{d}->pid, $pid, 'same process');
	ok($p->{d}->is_running, 'it runs');
	joined($a, $b, 'a pair: after');
	my $second = $p->come($token);
	joined($second, $first, 'who was parked before is met after it');
	my ($x, $y) = ($p->come($issued), $p->come($issued));
	joined($y, $x, 'a token of before');
	my ($c, $d) = $p->pair;
	joined($c, $d, 'a pair of after');
	close $_ for $a, $b, $first, $second, $x, $y, $c, $d;
	is($p->wait_ended($s)->{reason}, 'closed', 'and its end is a clean one');
}

# What fails changes nothing
{
	my ($a, $b) = $p->pair;
	my @workers = sort(living_workers($p));
	install_text("garbage\n" x 100);
	failed('a program that is none', qr/cannot be executed/);
	install_text("#!/bin/sh\necho 'settings of another kind' >&2\nexit 78\n");
	failed('one whose check fails', qr/check` ended with status 78/);
	unlink $program;
	failed('one that is not there', qr/cannot be executed/);
	install(program('proxy'));
	write_file("$p->{dir}/002.cfg", "public = { workers = \"many\"; };\n");
	failed('broken settings', qr/check` ended with status 78/);
	unlink "$p->{dir}/002.cfg";
	is(join(' ', sort(living_workers($p))), "@workers", 'the workers are the same');
	# passes the check, is gone then: all is at rest already, and goes back
	install_text("#!/bin/sh\nrm \"\$0\"\nexec " . program('proxy') . " \"\$@\"\n");
	failed('one that goes after its check', qr/could not be executed: No such file/);
	joined($a, $b, 'a pair lived through all this');
	my ($c, $d) = $p->pair;
	joined($c, $d, 'and new ones are made');
	my $before = metric('hyper_pairs_total{end_reason="closed"}');
	cmp_ok($before, '>', 0, 'there is something counted');
	my ($code, $out, $err) = verb('upgrade');
	is("$code $out", '1 ', '`proxy upgrade` fails with it, exit status 1');
	like($err, qr/the old program goes on: .* cannot be executed/, 'and says why');
	install(program('proxy'));
	($code, $out, $err) = verb('upgrade');
	is("$code $out$err", "0 upgraded\n", '`proxy upgrade` returns when the new one serves');
	joined($c, $d, 'a pair lives on');
	is(metric('hyper_pairs_total{end_reason="closed"}'), $before, 'counters do too');
	close $_ for $a, $b, $c, $d;
}

# Under load, with somebody else as the proxy's hyper
is($p->{d}->stop, 0, 'it stops cleanly');
$p = storm_proxy(workers => 2, program => $program);
$pid = $p->{d}->pid;
{
	my $rounds = ($ENV{HYPER_LONG} || $ENV{T_MANY}) ? 20 : 4;
	upgrade('a first one, for a state to compare with');
	$p->settled;
	note_state($p);
	my $l = load($p, pairs => 50, churn => 8, rate => 200_000, seconds => 600);
	my ($most, $t) = (0);
	for my $round (1 .. $rounds) {
		upgrade("round $round");
		ok($l->is_running, "round $round: the load runs");
	}
	is(end_load($l), 0, 'the load comes to its end');
	my $sum = sum_of($l);
	nothing_lost($sum, 50, "$rounds upgrades");
	is($sum->{churn}{done}, $sum->{churn}{asked}, "$rounds upgrades: each of $sum->{churn}{asked} short pairs was made and ended well");
	is($sum->{kept}{again} + $sum->{churn}{again}, 0, "$rounds upgrades: nobody had to come twice");
	cmp_ok($sum->{churn}{asked}, '>', 10 * $rounds, "$rounds upgrades: there was load");
	is($p->{d}->pid, $pid, 'still the same process');
	# also closes the connections to the hyper that are kept
	upgrade('a last one');
	state_is_back($p, "$rounds upgrades", kb => 2048);
	is($p->{d}->count_log(qr/ upgraded .* lost=[1-9]/), 0, 'nothing was lost on the way');
}

is($p->{d}->stop, 0, 'it stops cleanly');

# Bytes that are in a worker's memory and that nobody takes: that pair stays with its old worker
{
	$p = storm_proxy(workers => 2, program => $program, hyper => undef, more => 'copy_mode = true;');
	my ($a, $b, $s) = $p->pair;
	my ($c, $d) = $p->pair;
	my $much = join '', map { pack 'N', $_ } 1 .. 4_000_000;
	my $writer = fork // die "fork: $!";
	if (!$writer) {
		send_all($a, $much);
		shutdown $a, 1;
		POSIX::_exit(0);
	}
	wait_until { ProxyTest::is_blocked($writer) } or die 'the writer does not wait';
	upgrade('an old worker stays');
	is($p->{d}->count_log(qr/ upgraded .* old_workers=1 /), 1, 'one old worker stays');
	joined($c, $d, 'the other pair went on');
	my ($got, $how) = read_to_end($b, 30);
	ok($got eq $much, 'every byte through the old worker') or diag(length $got);
	is($how, 'eof', 'and the end');
	waitpid $writer, 0;
	close $_ for $a, $b;
	isnt($p->{d}->wait_log(qr/ info old_worker_exited .*left=0/), undef, 'then it exits, and is reaped');
	# one more, for the stop to end
	($a, $b) = $p->pair;
	$writer = fork // die "fork: $!";
	if (!$writer) {
		send_all($a, $much);
		POSIX::_exit(0);
	}
	wait_until { ProxyTest::is_blocked($writer) } or die 'the writer does not wait';
	upgrade('an old worker stays again');
	$p->{d}->signal('INT');
	is($p->{d}->wait_exit(10), 0, 'a stop ends old workers, too');
	close $_ for $a, $b, $c, $d;
	kill 'KILL', $writer;
	waitpid $writer, 0;
}

# A worker that stands still is killed first; its pairs go on
{
	$p = storm_proxy(workers => 2, program => $program, hyper => undef);
	my ($a, $b) = $p->pair(workers => [ 0, 1 ]);
	joined($a, $b, 'before its worker stands still');
	kill 'STOP', $p->worker_pid(1);
	upgrade('a worker that stands still');
	joined($a, $b, 'a worker that stands still: the pair went on');
	close $_ for $a, $b;
	is($p->{d}->stop, 0, 'it stops cleanly');
}
hyper_done();
