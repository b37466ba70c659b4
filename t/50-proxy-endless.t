#!/usr/bin/perl
# Guards: however many pairs were brokered (4,000 here, 100,000 with HYPER_LONG), master and workers hold the same memory, descriptors, records and timers as before.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use ProxyTest;
use Test::More;

my ($warm, $many) = $ENV{HYPER_LONG} ? (5_000, 100_000) : (1_000, 3_000);
my $at_once = 24;
# A record that stays behind would fill this table, a count that stays behind these quotas.
my $p = storm_proxy(workers => 2,
	more => 'table_slots = 64; max_tokens_per_operator = 64; max_outstanding_per_operator = 64; max_parked = 64; max_pairs_total = 128;');

sub broker_many {
	my ($n, $what) = @_;
	my $l = load($p, churn => $at_once, total => $n, bytes => 2000, seconds => 600);
	is($l->wait_exit(600), 0, "$what: the load ends by itself");
	my $sum = sum_of($l);
	is($sum->{churn}{done}, $n, "$what: $n pairs were brokered, joined and ended well") or diag($sum->{said});
	is($sum->{churn}{asked}, $n, "$what: each with one request");
	return $sum;
}

my @pids = ($p->{d}->pid, $p->worker_pids);
my @names = ('master', 'worker 0', 'worker 1');
my $resting = sub {
	my @fds;
	wait_until {
		my @now = map { fds_of($_) } @pids;
		my $same = "@now" eq "@fds";
		@fds = @now;
		$same && !grep { tcp_of($_) > 0 } @pids[ 1, 2 ];
	} 20;
	return { map { ($names[$_] => { fds => held_by($pids[$_]), kept => kept_of($pids[$_]), kB => anon_of($pids[$_]), wakes => wakes_of($pids[$_]) }) } 0 .. 2 };
};
# Descriptors but for the pool of pipes.
sub held_by { my ($pid) = @_; return scalar grep { (readlink($_) // '') !~ m{^(?:pipe:|/proc/)} } glob "/proc/$pid/fd/*" }
# Connections to its hyper: the client keeps them for the next call, as many as calls were ever under way at once, which is
# another number each time. The other side may have closed or reset them, and one that was reset is in no table of the
# kernel: so what counts is every socket that is neither a channel nor one of our ports'.
sub kept_of {
	my ($pid) = @_;
	my %mine = map { (readlink($_) // '') =~ /^socket:\[(\d+)\]/ ? ($1 => 1) : () } glob "/proc/$pid/fd/*";
	my $ours = sprintf '%04X|%04X', @$p{qw(port rpc)};
	delete @mine{ read_file('/proc/net/unix') =~ /^\w+: (?:\S+ +){5}(\d+)/mg };
	delete @mine{ read_file("/proc/net/$_") =~ /^\s*\d+: \S+:(?:$ours) \S+ \w\w (?:\S+ +){5}(\d+)/mg } for 'tcp', 'tcp6';
	return scalar keys %mine;
}
# Connections that a process holds.
sub tcp_of {
	my ($pid) = @_;
	my %mine = map { (readlink($_) // '') =~ /^socket:\[(\d+)\]/ ? ($1 => 1) : () } glob "/proc/$pid/fd/*";
	return scalar grep { /^\s*\d+: \S+ \S+ (\w\w) (?:\S+ +){5}(\d+)/ && $1 eq '01' && $mine{$2} } map { split /\n/, read_file("/proc/net/$_") } 'tcp', 'tcp6';
}

broker_many($warm, 'warm-up');
my $before = $resting->();
my $sum = broker_many($many, 'then');
my $after = $resting->();
cmp_ok($sum->{churn}{bytes}, '>', 1000 * $many, 'bytes went through');
for my $name (@names) {
	my ($b, $a) = ($before->{$name}, $after->{$name});
	note("$name: " . join ', ', map { "$_ $b->{$_} -> $a->{$_}" } sort keys %$b);
	cmp_ok($a->{fds} - $a->{kept}, '<=', $b->{fds} - $b->{kept}, "$name: no descriptor more (idle pipes apart)");
	cmp_ok($a->{kept}, '<=', $name eq 'master' ? $at_once : 0, "$name: no more connections to its hyper than there were calls at once");
	cmp_ok($a->{wakes}, '<=', $b->{wakes} + 5, "$name: at rest it wakes up no more often, so no timer is left");
	SKIP: {
		skip 'a sanitizer keeps what was freed', 1 if sanitized();
		my $kept = $a->{kept} > $b->{kept} ? $a->{kept} - $b->{kept} : 0;
		cmp_ok($a->{kB}, '<=', $b->{kB} + 256 + 24 * $kept, "$name: no memory more (but that of kept connections)");
	}
}
is(join(' ', @pids[ 1, 2 ]), join(' ', $p->worker_pids), 'by the same workers');
is($p->{d}->count_log(qr/^\S+ \S+ (?:warn|error) /), 0, 'without a warning') or diag($p->{d}->log_tail);
is($p->{d}->stop, 0, 'it stops cleanly');
my ($totals) = $p->log_text =~ /proxy\[\d+\] info totals (.*)/;
is(join(' ', grep { !/=0$/ } split / /, $totals), '', 'its last line: nothing is held, nothing was refused');
hyper_done();
