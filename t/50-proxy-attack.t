#!/usr/bin/perl
# Guards: while strangers and one operator do their worst, everybody else is paired, and afterwards nothing of it is left.
#
# bench/load is both: the attackers (bench/attack.c), and the others, who make pairs with real tokens and give up with an
# error at the first one that fails. Short form: a tenth of the attackers, and limits that fit them; HYPER_LONG=1: all.
use strict;
use warnings;
use HyperTest;
use POSIX ();
use ProxyTest;
use Test::More;

use constant AT_ONCE => 32; # pairs of the others under way

my $long = $ENV{HYPER_LONG};
my $n = $long ? 2000 : 200;
my $stalled = $long ? 500 : 20;
my $seconds = $long ? 10 : 1.5;
my %limit = (max_unauthenticated => $n / 2, max_unauthenticated_per_source => $n / 8, max_bad_tokens_per_source => $n / 2,
	barred_source_time => '1.0', max_pairs => 1024, table_slots => 8192, max_tokens_per_operator => 100, max_parked_per_operator => 50,
	max_outstanding_per_operator => 64);
my $p = proxy(workers => 2, hyper => free_port(), log_level => 'info', token_timeout => 2, accept_timeout => $long ? 10 : 1.5,
	more => join ' ', map { "$_ = $limit{$_};" } sort keys %limit);
my $load = build() . '/bench/load';
my @where = ('mode=token', "dial=$p->{port}", "rpc=$p->{rpc}", "hyper=$p->{hyper_port}"); # load plays it
my @pids = ($p->{d}->pid, $p->worker_pids);

# The others, for so many seconds: what load says, with `failed` when it gave up.
sub others {
	my ($s) = @_;
	my ($code, $out, $err) = run_program([ $load, 'rate', @where, 'in_flight=' . AT_ONCE, 'per_s=100', 'warm=0.1', "seconds=$s" ], timeout => $s + 30);
	return $code == 0 ? json_value($out) : { failed => $err };
}

# Its pid, and what ends it when it is closed; it has what it wants to hold.
sub attack_start {
	my (@words) = @_;
	my $log = tmp() . '/attack.log';
	unlink $log;
	pipe my $r, my $w or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		close $w;
		open STDIN, '<&', $r or POSIX::_exit(126);
		open STDOUT, '>', $log or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec $load, 'attack', @words, 'source=9', @where or POSIX::_exit(127);
	}
	close $r;
	wait_until { read_file($log) =~ /^(?:ready$|load:)/m } 60;
	like(read_file($log), qr/^ready$/m, "@words: it begins");
	return ($pid, $w, $log);
}

# Memory of their own of all our processes, in bytes.
sub memory {
	my $sum = 0;
	for my $pid (@pids) { $sum += $_ for read_file("/proc/$pid/smaps_rollup") =~ /^Pss_(?:Anon|Shmem):\s+(\d+)/mg }
	return 1024 * $sum;
}

# What the settings permit: a base for each process, then each thing that there may be with its upper bound in bytes.
sub memory_cap {
	my $workers = 2 * ((6 << 20) + 1024 * $limit{max_unauthenticated} + 1024 * $limit{max_pairs} + 2 * 4096 * 256);
	my $master = (24 << 20) + 1024 * $limit{table_slots} + 512 * 2 * $limit{max_pairs} + 1024 * 32768; # 1,024 JSON-RPC connections
	return $workers + $master;
}

sub pipes { my %seen; for my $pid (@pids) { $seen{ readlink($_) // '' }++ for glob "/proc/$pid/fd/*" } return scalar grep { /^pipe:/ } keys %seen }

sub cpu_ms {
	my $sum = 0;
	for my $pid (@pids) { $sum += (split / /, read_file("/proc/$pid/schedstat"))[0] / 1e6 }
	return $sum;
}

# One attack, the others meanwhile, and what is left of it.
sub under {
	my ($what, @words) = @_;
	my ($pid, $w, $log) = attack_start(@words);
	my $got = others($seconds);
	my ($memory, $cap) = (memory(), memory_cap());
	is($got->{failed}, undef, "$what: no pair of the others fails");
	cmp_ok($got->{pairs} // 0, '>=', 50 * $seconds / slow_factor(), "$what: they go on as before");
	cmp_ok($got->{p99_us} // 1e9, '<', 1e6 * slow_factor(), "$what: nobody waits for a second try of his connection");
	cmp_ok($memory, '<', $cap, "$what: memory under what the settings permit") if slow_factor() == 1;
	cmp_ok(pipes(), '<=', 2 * $stalled + 2 * 64 + 16, "$what: pipes only where bytes are stuck, and a pool");
	close $w;
	waitpid $pid, 0;
	is($?, 0, "$what: the attacker did what it could") or diag(read_file($log));
	diag(sprintf '%s: %d pairs, p99 %.1f ms, memory %.1f of %.1f MB, attack %s', $what, $got->{pairs} // 0, ($got->{p99_us} // 0) / 1000, $memory / 1e6,
		$cap / 1e6, read_file($log) =~ /^(\{.*)/m) if $long || $ENV{T_FIGURES};
	# The master keeps the connections to its hyper, and finds only at the next use that load has gone.
	my $now;
	ok((wait_until { $now = $p->count_fds; !grep { $now->[$_] > $p->{fds}[$_] + ($_ ? 0 : AT_ONCE) } 0 .. $#$now }), "$what: descriptors are back")
	    or diag("were @{ $p->{fds} }, are @$now");
	my $before = cpu_ms();
	select undef, undef, undef, 0.5; # lasts: CPU time is compared over it
	cmp_ok(cpu_ms() - $before, '<', 50 * slow_factor(), "$what: afterwards nobody spins");
	my ($json) = read_file($log) =~ /^(\{.*)/m;
	return $json ? json_value($json) : {};
}

is(others(1)->{failed}, undef, 'quiet: pairs are made');
$p->note_fds;
my $drip = under('drip', 'kind=drip', "pairs=$n", 'per_s=' . 4 * $n, 'sources=' . $n / 10);
cmp_ok($drip->{closed}, '>', 0, 'drip: the oldest are closed');
my $silent = under('silent', 'kind=silent', "pairs=$n", "per_s=$n");
cmp_ok($silent->{closed}, '>', $n / 4, 'silent: the oldest are closed');
my $bad = under('bad tokens', 'kind=bad', 'pairs=64', 'per_s=2000');
cmp_ok($bad->{closed}, '>', $n, 'bad tokens: each is closed');
my $park = under('parking', 'kind=park', "pairs=$n", 'per_s=200');
cmp_ok($park->{refused}, '>', 0, 'parking: refused over the limit');
my $segments = under('segments', 'kind=segments', "pairs=$stalled", 'per_s=' . ($long ? 60000 : 20000));
cmp_ok($segments->{stalled}, '>', 0, 'segments: pairs are stuck');
is(others(1)->{failed}, undef, 'quiet again: pairs are made');
is($p->{d}->stop, 0, 'it stops cleanly');

# Each refusal has its reason, and is counted.
my %refused;
for my $line ($p->log_text =~ / info (?:worker_)?totals (.*)/g) { $refused{$1} += $2 while $line =~ /\brefused_(\w+)=(\d+)/g }
cmp_ok($refused{$_} // 0, '>', 0, "counted: $_") for qw(busy crowded barred unknown_token max_tokens_per_operator max_parked_per_operator);
like($p->log_text, qr/ warn barred peer=127\.9\.0\.1 max=\d+ .*max_bad_tokens_per_source/, 'the log names the address and the setting');
cmp_ok(scalar(() = $p->log_text =~ / info refused /g), '<', 2000, 'the log is not flooded');
hyper_done();
