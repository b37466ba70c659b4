# ChaosTest.pm - a proxy under t/unit/pair_load, with signals to its workers; what must be back afterwards
#
#   my $p = storm_proxy(workers => 4);
#   my $l = load($p, pairs => 500, churn => 2, seconds => 60);     # returns when all pairs are made
#   my $hits = storm($p, $l, KILL => 1, SEGV => 1, STOP => 1, CONT => 1);   # until the load ends
#   my $sum = sum_of($l);                                           # what the load found
#
# Signals go to children of our own master only, whose pids come from the kernel each time.
package ChaosTest;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $loads;
our @EXPORT = qw(storm_proxy load storm end_load sum_of nothing_lost note_state state_is_back hit anon_of wakes_of cpu_of living_workers rescued_of sanitized);

# Options as of proxy(). Tokens live long, since a party whose worker died comes again with its own; that one may be used
# by then, and no address is barred for it. Signals that we send are no crash to be written down or looked into.
sub storm_proxy {
	my (%opt) = @_;
	my $more = 'max_bad_tokens_per_source = 0; ' . (delete $opt{more} // '');
	my $asan = join ':', 'handle_segv=0', $ENV{ASAN_OPTIONS} // ();
	return proxy(hyper => free_port(), token_timeout => 60, log_level => 'info', workers => 4, more => $more, env => { ASAN_OPTIONS => $asan },
		wrap => [ 'sh', '-c', 'ulimit -c 0; exec "$@"', 'sh' ], %opt);
}

sub sanitized { return read_file(build() . '/config.log') =~ /--enable-asan/ }

# Starts the load program and waits until its pairs are made; see t/unit/pair_load.c for what may be asked.
sub load {
	my ($p, %opt) = @_;
	my $name = 'load-' . ++$loads;
	my @args = map { "$_=$opt{$_}" } sort keys %opt;
	return start($name, [ build() . '/t/unit/pair_load', "dial=$p->{port}", "rpc=$p->{rpc}", "hyper=$p->{hyper_port}", @args ], timeout => 60);
}

# Workers that have not ended.
sub living_workers { my ($p) = @_; return grep { read_file("/proc/$_/stat") !~ /\) Z / } children_of($p->{d}->pid) }

# One signal to one process; true when it was there.
sub hit { my ($signal, $pid) = @_; return kill $signal, $pid }

# Every `every` seconds (0.02) one of these signals, as often as its number says, to a worker, until the load has ended or
# `seconds` are over. All run on afterwards. { signal => how many }
sub storm {
	my ($p, $l, %opt) = @_;
	my ($every, $seconds) = (delete $opt{every} // 0.02, delete $opt{seconds} // 1e9);
	my @signals = map { ($_) x $opt{$_} } sort keys %opt;
	my (%hits, %stopped);
	my ($end, $next) = (time + $seconds, time);
	while ($l->is_running && time < $end) {
		my @w = living_workers($p);
		if (@w) {
			my ($signal, $pid) = ($signals[ rand @signals ], $w[ rand @w ]);
			$hits{$signal}++ if hit($signal, $pid);
			$stopped{$pid} = $signal eq 'STOP' if $signal =~ /STOP|CONT/;
		}
		$next += $every;
		my $left = $next - time;
		$left > 0 ? sleep $left : ($next = time); # lasts: the storm's own beat
	}
	# a stopped one's end would come by its heartbeat, which another test waits for
	my %alive = map { $_ => 1 } living_workers($p);
	hit('CONT', $_) for grep { $stopped{$_} && $alive{$_} } keys %stopped;
	return \%hits;
}

# Tells the load to come to its end, unless it does so by itself, and waits for it.
sub end_load {
	my ($l, $seconds) = @_;
	$l->signal('TERM') if $l->is_running;
	return $l->wait_exit($seconds // 90);
}

# What it found: { kept => {}, churn => {}, hung, seed, ms }.
sub sum_of {
	my ($l) = @_;
	$l->wait_exit(120);
	my ($json) = $l->log_text =~ /^sum (.*)$/m or die "no sum:\n" . $l->log_tail;
	my $sum = json_value($json);
	my @said = grep { /^load (?:lost|unmet|wrong|false|hung) / } split /\n/, $l->log_text;
	$sum->{said} = join "\n", @said[ 0 .. ($#said < 9 ? $#said : 9) ];
	return $sum;
}

# Every stream came out as it went in; and there were as many as asked for, with bytes in them.
sub nothing_lost {
	my ($sum, $pairs, $what) = @_;
	my $ok = 1;
	my %bad = (hung => $sum->{hung});
	for my $kind ('kept', 'churn') {
		$bad{"$kind $_"} = $sum->{$kind}{$_} for qw(lost wrong unmet false_ends);
	}
	$ok &= is(join(', ', map { "$_: $bad{$_}" } grep { $bad{$_} } sort keys %bad), '', "$what: 0 pairs lost, every stream right");
	$ok &= is($sum->{kept}{done}, $pairs, "$what: all $pairs pairs came to their own end");
	$ok &= cmp_ok($sum->{kept}{bytes}, '>', 1000 * $pairs, "$what: they moved bytes");
	diag("seed=$sum->{seed}\n$sum->{said}") if !$ok;
	note("$what: " . json_text($sum));
	return $ok;
}

# Memory of its own, kilobytes: program text is shared with whoever runs the same program beside this test.
sub anon_of { my ($pid) = @_; return read_file("/proc/$pid/smaps_rollup") =~ /^Pss_Anon:\s+(\d+)/m ? $1 : 0 }

# CPU seconds of a process.
sub cpu_of { my ($pid) = @_; return read_file("/proc/$pid/schedstat") =~ /^(\d+)/ ? $1 / 1e9 : 0 }

# How often a process woke up by itself in a second: timers that were forgotten show here.
sub wakes_of {
	my ($pid) = @_;
	my $count = sub { read_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : 0 };
	my $before = $count->();
	sleep 1; # lasts: counted per second
	return $count->() - $before;
}

# Pairs that went on at another worker so far, by the master's log.
sub rescued_of {
	my ($p) = @_;
	my ($times, $pairs, $log) = (0, 0, $p->log_text);
	while ($log =~ /proxy\[\d+\] info rescue worker=\d+ pairs=(\d+)/g) {
		$times++;
		$pairs += $1;
	}
	return ($times, $pairs);
}

# Descriptors and memory of the master, sockets of all its workers. Pipes are a pool, which has its own limit.
sub state_of {
	my ($p) = @_;
	my $master = $p->{d}->pid;
	my @workers = living_workers($p);
	my $count = sub { my ($pid, $re) = @_; return scalar grep { (readlink($_) // '') =~ $re } glob "/proc/$pid/fd/*" };
	my %s = (workers => scalar @workers, 'files of the master' => $count->($master, qr/^(?!pipe:|socket:|\/proc)/),
		'sockets of the master' => $count->($master, qr/^socket:/), 'pipes of the master' => $count->($master, qr/^pipe:|^\/proc/),
		'sockets of the workers' => 0, 'kB of the master' => anon_of($master));
	$s{'sockets of the workers'} += $count->($_, qr/^socket:/) for @workers;
	return \%s;
}

sub note_state { my ($p) = @_; return $p->{state} = state_of($p) }

# kb => how much the master's memory may have grown, workers => do not wait for more of them than this (what died often
# comes back late).
sub state_is_back {
	my ($p, $what, %opt) = @_;
	my ($was, $now, @more) = ($p->{state});
	# Connections to its hyper are kept for a while, idle pipes for good: which worker has how many is chance.
	# One that each death or pair left behind would be thousands.
	my %slack = ('sockets of the master' => 40, 'pipes of the master' => 16, 'kB of the master' => sanitized() ? 1e9 : $opt{kb} // 1024);
	my $ok = wait_until {
		$now = state_of($p);
		@more = grep { $now->{$_} > $was->{$_} + ($slack{$_} // 0) } sort keys %$was;
		!@more && $now->{workers} >= ($opt{workers} // $was->{workers});
	} 45;
	ok($ok, "$what: descriptors and memory are back") or diag(map { "$_: was $was->{$_}, is $now->{$_}\n" } sort keys %$was);
	note("$what: " . join ', ', map { "$_ $was->{$_} -> $now->{$_}" } sort keys %$was);
	return $ok;
}

1;
