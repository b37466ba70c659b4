# BenchReport.pm - medians, ratios and the targets as Markdown tables
package BenchReport;
use strict;
use warnings;
use Exporter 'import';
use BenchRelays qw(peer);
use HyperTest qw(read_file run_program);
use POSIX qw(strftime);

our @EXPORT = qw(cpu_count report_head report_workload report_idle report_growth report_calls report_table report_attack report_targets);

my $worst_attack;
my %median; # workload => relay => figure => median over the rounds

sub cpu_count { my $n = () = read_file('/proc/cpuinfo') =~ /^processor\s*:/mg; return $n }

sub median {
	my @sorted = sort { $a <=> $b } grep { defined } @_;
	return undef if !@sorted;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub keep {
	my ($name, $got) = @_;
	for my $who (keys %$got) {
		my %figures = map { %$_ } @{ $got->{$who} };
		for my $f (keys %figures) { $median{$name}{$who}{$f} = median(map { $_->{$f} } @{ $got->{$who} }) }
	}
	return;
}

sub is_ours { return $_[0] =~ /^hyper/ }
sub is_peer { return !is_ours($_[0]) && $_[0] ne 'direct' }

# The best peer's figure: (value, name).
sub best {
	my ($name, $figure, $more_is_better) = @_;
	my $m = $median{$name} or return;
	my @peers = sort { $m->{$a}{$figure} <=> $m->{$b}{$figure} } grep { is_peer($_) && defined $m->{$_}{$figure} } keys %$m;
	return if !@peers;
	my $who = $more_is_better ? $peers[-1] : $peers[0];
	return ($m->{$who}{$figure}, $who);
}

sub row { return '| ' . join(' | ', @_) . " |\n" }
sub head { return row(@_) . '|' . '---|' x @_ . "\n" }
sub fmt { my ($f, $v) = @_; return defined $v ? sprintf($f, $v) : '-' }
sub ratio { my ($a, $b) = @_; return defined $a && $b ? sprintf('%.2f', $a / $b) : '-' }

sub version {
	my ($re, @cmd) = @_;
	my (undef, $out, $err) = run_program([@cmd], timeout => 10, env => BenchRelays::peer_env());
	return "$out$err" =~ $re ? $1 : 'not installed';
}

sub report_head {
	my ($quick, $size) = @_;
	my ($cpu) = read_file('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)/m;
	my ($memory) = read_file('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;
	my $kernel = (POSIX::uname())[2];
	print '# ', ($quick ? 'Quick benchmark' : 'Benchmark'), strftime(", %Y-%m-%d %H:%M UTC\n\n", gmtime);
	printf "Linux %s, %d CPUs (%s), %.0f GB; %s on loopback; load average at the start %s. Medians of %d interleaved rounds of %s s.\n\n", $kernel,
	    cpu_count(), $cpu // 'unknown', $memory / 1e6, read_file('/proc/sys/net/ipv4/tcp_congestion_control') =~ s/\n//r, (split / /, read_file('/proc/loadavg'))[0], $size->{rounds}, $size->{seconds};
	print 'HAProxy ', version(qr/version (\S+)/, peer('/usr/sbin/haproxy'), '-v'), ', nginx ', version(qr{nginx/(\S+)}, peer('/usr/sbin/nginx'), '-v'),
	    ', socat ', version(qr/socat version (\S+)/, peer('/usr/bin/socat'), '-V'), ', strelaysrv ', version(qr/strelaysrv (v\S+)/, peer('/usr/bin/strelaysrv'), '-version'),
	    ', OpenSSL ', version(qr/OpenSSL (\S+)/, 'openssl', 'version'),
	    ". CPU is that of the relay's processes alone; ratios are to the best peer of that column.\n";
	return;
}

# figures => [ title, format, more is better ]
my %columns = (
	bulk => [ [ gb_per_s => 'GB/s', '%.2f', 1 ], [ cpu_s_per_gb => 'CPU-s/GB', '%.3f', 0 ] ],
	ping => [ [ per_s => 'round trips/s', '%.0f', 1 ], [ p50_us => 'p50 us', '%.1f', 0 ], [ p99_us => 'p99 us', '%.1f', 0 ],
		[ cpu_us_per_trip => 'CPU us/round trip', '%.2f', 0 ] ],
	rate => [ [ per_s => 'pairs/s', '%.0f', 1 ], [ p50_us => 'p50 us', '%.0f', 0 ], [ p99_us => 'p99 us', '%.0f', 0 ],
		[ cpu_us_per_pair => 'CPU us/pair', '%.1f', 0 ] ],
);

sub report_workload {
	my ($name, $title, $names, $got) = @_;
	keep($name, $got);
	my ($kind) = $name =~ /^(bulk|ping|rate)/;
	my @c = @{ $columns{$kind} };
	print "\n## $title\n\n", head('relay', map { ($_->[1], 'ratio') } @c);
	for my $who (@$names) {
		my $m = $median{$name}{$who};
		print row($who, map { my ($f, undef, $format, $more) = @$_;
			$who eq 'direct' && $f =~ /^cpu/ ? ('-', '-') : (fmt($format, $m->{$f}), ratio($m->{$f}, (best($name, $f, $more))[0])) } @c);
	}
	return;
}

sub report_idle {
	my ($got) = @_;
	keep('idle', $got);
	print "\n## Idle pairs\n\nEach pair's cost is the slope from a quarter of the pairs to all of them. Memory is anonymous and shared PSS of all processes;\n",
	    "slab is the whole system's, the generator's two sockets included.\n\n",
	    head('relay', 'pairs', 'user memory, bytes per pair', 'all user memory / pairs', 'slab bytes per pair', 'descriptors per pair', 'pipes per pair', 'wake-ups/s that they cause');
	for my $who (sort keys %$got) {
		my $m = $median{idle}{$who};
		print row($who, fmt('%d', $m->{pairs}), $who eq 'direct' ? ('-', '-', fmt('%.0f', $m->{slab}), '-', '-', '-') : (fmt('%.0f', $m->{memory}),
				fmt('%.0f', $m->{total}), fmt('%.0f', $m->{slab}), fmt('%.2f', $m->{fds}), fmt('%.2f', $m->{pipes}), fmt('%.1f', $m->{turns})));
	}
	return;
}

sub report_growth {
	my ($pairs, $parked) = @_;
	keep('growth_pairs', $pairs);
	keep('growth_parked', $parked);
	print "\n## As the number of pairs grows\n\n64-byte ping-pong on 64 of the pairs, the others are idle. Memory is that of all processes, by the number of pairs.\n\n",
	    head('pairs', 'CPU us/round trip', 'ratio', 'round trips/s', 'p99 us', 'user memory, bytes per pair');
	my ($first) = my @n = sort { $a <=> $b } keys %$pairs;
	for my $n (@n) {
		my ($m, $f) = @{ $median{growth_pairs} }{ $n, $first };
		print row($n, fmt('%.2f', $m->{cpu_us_per_trip}), ratio($m->{cpu_us_per_trip}, $f->{cpu_us_per_trip}), fmt('%.0f', $m->{per_s}), fmt('%.0f', $m->{p99_us}), fmt('%.0f', $m->{memory}));
	}
	print "\n200 pairs a second with requestConnection, while so many sockets are parked. Memory is what all processes have more of, by their number.\n\n",
	    head('parked', 'CPU us/pair', 'ratio', 'p50 us', 'p99 us', 'user memory, bytes per parked socket');
	($first) = @n = sort { $a <=> $b } keys %$parked;
	for my $n (@n) {
		my ($m, $f) = @{ $median{growth_parked} }{ $n, $first };
		print row($n, fmt('%.0f', $m->{cpu_us_per_pair}), ratio($m->{cpu_us_per_pair}, $f->{cpu_us_per_pair}), map({ fmt('%.0f', $m->{$_}) } qw(p50_us p99_us)), fmt('%.0f', $m->{memory}));
	}
	return;
}

sub report_calls {
	my ($got) = @_;
	keep('calls', $got);
	print "\n## JSON-RPC calls hd-1 -> hd-2, end to end\n\nAll five programs run; CPU is theirs together.\n\n",
	    head('call', 'samples', 'calls/s', 'p50 ms', 'p99 ms', 'CPU us/call');
	for my $who ('first call after the start', 'brokered, no connection to B', (map { "pooled, $_ clients" } 1, 8, 64), 'pooled, 1 client, 3 MB there and back') {
		my $m = $median{calls}{$who} // {};
		my $is_single = $who !~ /pooled/;
		print row($who, scalar @{ $got->{$who} // [] }, $is_single ? '-' : fmt('%.0f', $m->{per_s}), fmt('%.2f', defined $m->{p50_us} ? $m->{p50_us} / 1000 : undef),
			$is_single ? '-' : fmt('%.2f', defined $m->{p99_us} ? $m->{p99_us} / 1000 : undef), fmt('%.0f', $m->{cpu_us_per_call}));
	}
	return;
}

# Beside each figure what it is of that with the fewest tokens: logarithmic work, and ever fewer of the records in a cache.
sub report_table {
	my ($got) = @_;
	keep('table', $got);
	print "\n## The token table alone, ns per operation (and as a multiple of the first line)\n\n",
	    head('live tokens', 'look-up, there', 'look-up, not there', 'issue into a fresh table', 'release and issue', 'expiry of all');
	my ($first, @more) = sort { $a <=> $b } keys %$got;
	for my $n ($first, @more) {
		my ($m, $f) = @{ $median{table} }{ $n, $first };
		print row($n, map { fmt('%.0f', $m->{$_}) . ($n == $first ? '' : ' (' . ratio($m->{$_}, $f->{$_}) . ')') } qw(hit_ns miss_ns issue_ns turnover_ns expiry_ns));
	}
	return;
}

sub report_attack {
	my ($names, $got) = @_;
	keep('attack', $got);
	my $quiet = $median{attack}{ $names->[0] };
	print "\n## Pairing of the others under attack\n\n200 pairs a second with requestConnection, default settings; a pair that fails ends the run. The attacker runs at nice 19.\n\n",
	    head('attack', 'pairs/s', 'p50 us', 'ratio', 'p99 us', 'ratio', 'CPU us/pair, the attack\'s included');
	for my $who (@$names) {
		my $m = $median{attack}{$who};
		$worst_attack = $who if $who ne $names->[0] && (!defined $worst_attack || $m->{p99_us} > $median{attack}{$worst_attack}{p99_us});
		print row($who, fmt('%.0f', $m->{per_s}), map({ (fmt('%.0f', $m->{$_}), ratio($m->{$_}, $quiet->{$_})) } qw(p50_us p99_us)), fmt('%.0f', $m->{cpu_us_per_pair}));
	}
	return;
}

# --- targets ---

sub of { my ($name, $who, $figure) = @_; return exists $median{$name} && $median{$name}{$who} ? $median{$name}{$who}{$figure} : undef }

# One line: what, figure, limit, is less better, where the limit comes from
sub target {
	my ($what, $value, $limit, $less, $format, $why) = @_;
	return if !defined $value;
	return print row($what, fmt($format, $value), '-', 'no figure to compare with', '-') if !defined $limit;
	my $met = $less ? $value <= $limit : $value >= $limit;
	print row($what, fmt($format, $value), ($less ? '<= ' : '>= ') . fmt($format, $limit), $why, $met ? 'met' : '**missed** by ' . ($limit ? sprintf('%.0f %%', abs($value - $limit) / $limit * 100) : fmt($format, $value)));
	return;
}

# Our default settings are what counts for bulk. Small messages cost less where one process finds more of them at each
# look, ours as well as HAProxy's: there the best of ours with a worker for each CPU and with one stands against the
# best of all rows of the peers, and the line says which ones these are. Settings that give something up never count.
sub against_peer {
	my ($what, $name, $figure, $factor, $less, $format, %opt) = @_;
	my $by = $opt{chosen_by} // $figure;
	my ($value, $who) = best($name, $by, !$less);
	$value = of($name, $who, $figure) if defined $who;
	my ($ours, @other) = ('hyper', 'hyper, 1 worker');
	($ours, @other) = reverse $ours, @other if $opt{any_workers} && (of($name, $other[0], $by) // 9e9) < (of($name, $ours, $by) // 0);
	push @other, 'hyper, splice only', 'hyper, 1 worker, splice only' if $opt{any_workers};
	target($opt{any_workers} ? "$what (`$ours`)" : $what, of($name, $ours, $figure), defined $value ? $factor * $value : undef, $less, $format,
		join '; ', (defined $who ? sprintf('%s x %s (%s)', $factor, $who, fmt($format, $value)) : ()),
		map { my $v = of($name, $_, $figure); defined $v ? "`$_` " . fmt($format, $v) : () } @other);
	return;
}

sub report_targets {
	# The reference's figures come from a run in which HAProxy joined 12,500 connections/s: scaled by what it reaches here.
	my ($connections) = map { $_->[0] } grep { defined $_->[0] } [ best('rate', 'per_s', 1) ];
	my $scale = defined $connections ? $connections / 12_500 : undef;
	my $scaled = sub { my ($v, $factor) = @_; return defined $scale ? $v * $scale * $factor : undef };
	my $note = defined $scale ? sprintf('scaled by %.2f, HAProxy\'s connections/s here to 12,500', $scale) : '';
	print "\n## Targets\n\n", head('what', 'measured', 'target', 'that is', 'result');
	against_peer('bulk, 64 pairs: GB/s', 'bulk64', 'gb_per_s', 1.0, 0, '%.2f');
	against_peer('bulk, 64 pairs: CPU-s/GB', 'bulk64', 'cpu_s_per_gb', 0.8, 1, '%.3f');
	against_peer('bulk, 1 pair: GB/s', 'bulk1', 'gb_per_s', 1.0, 0, '%.2f');
	against_peer('bulk, 1 pair: CPU-s/GB', 'bulk1', 'cpu_s_per_gb', 0.9, 1, '%.3f');
	against_peer('bulk, 64 pairs both ways: CPU-s/GB', 'bulk64both', 'cpu_s_per_gb', 1.0, 1, '%.3f');
	against_peer('ping-pong, 64 pairs: CPU us', 'ping64', 'cpu_us_per_trip', 0.95, 1, '%.2f', any_workers => 1);
	against_peer('ping-pong, 64 pairs: p99 us', 'ping64', 'p99_us', 1.0, 1, '%.0f', any_workers => 1, chosen_by => 'cpu_us_per_trip');
	against_peer('ping-pong, 1 pair, one core: CPU us', 'ping1core', 'cpu_us_per_trip', 0.95, 1, '%.2f', any_workers => 1);
	target('pairing, tokens ahead: pairs/s', of('rate_ahead', 'hyper', 'per_s'), $scaled->(9330, 1.2), 0, '%.0f', "1.2 x the reference's 9,330, $note");
	target('pairing, tokens ahead: CPU us/pair', of('rate_ahead', 'hyper', 'cpu_us_per_pair'), defined $scale ? 103 * 0.8 / $scale : undef, 1, '%.1f',
		"0.8 x the reference's 103, $note");
	target('requestConnection + pairing, HTTP: pairs/s', of('rate', 'hyper', 'per_s'), $scaled->(3038, 3), 0, '%.0f', "3 x the reference's 3,038, $note");
	target('requestConnection + pairing, mTLS: pairs/s', of('rate', 'hyper, mTLS', 'per_s'), $scaled->(380, 8), 0, '%.0f', "8 x the reference's 380, $note");
	target('idle pair: bytes of user memory', of('idle', 'hyper', 'memory'), 700, 1, '%.0f', 'absolute');
	target('idle pair: pipes', of('idle', 'hyper', 'pipes'), 0.01, 1, '%.2f', 'none; a pool of a few for all is fine');
	target('idle pairs: wake-ups/s', of('idle', 'hyper', 'turns'), 1, 1, '%.1f', '0, and at most 1/s of noise');
	target("under attack: p99 us ($worst_attack)", of('attack', $worst_attack, 'p99_us'), 2 * of('attack', 'no attack', 'p99_us'), 1, '%.0f', '2 x without one')
	    if defined $worst_attack;
	my $ms = sub { my $us = of('calls', $_[0], 'p50_us'); return defined $us ? $us / 1000 : undef };
	target('pooled call, 1 client: p50 ms', $ms->('pooled, 1 clients'), 1, 1, '%.2f', 'absolute');
	target('calls, 8 clients: calls/s', of('calls', 'pooled, 8 clients', 'per_s'), 3000, 0, '%.0f', 'absolute');
	target('brokered call: p50 ms', $ms->('brokered, no connection to B'), 8, 1, '%.2f', 'absolute');
	return;
}

1;
