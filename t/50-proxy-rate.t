#!/usr/bin/perl
# Guards: public.bytes_per_second_per_operator holds for all pairs of one operator at all workers together, and concerns no other operator.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);
use POSIX ();

my $limit = 2_000_000;
my @writers;

# A joined pair of this operator whose bytes that worker moves.
sub pair_at {
	my ($p, $from, $worker) = @_;
	my ($token, $session) = $p->broker(params => { to => 'hd-2', channel => 'grpc_server', _client => ProxyTest::client($from) });
	my $first = $p->come($token);
	$p->wait_parked($session);
	my $second = $p->at($worker, sub { $p->come($token) });
	$p->wait_pair($session);
	return ($first, $second);
}

# A process that writes without pause.
sub write_all {
	my ($sock) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		$SIG{PIPE} = 'DEFAULT';
		my $data = 'w' x 65536;
		1 while syswrite $sock, $data;
		POSIX::_exit(0);
	}
	push @writers, $pid;
	return;
}

sub stop_writers { kill 'KILL', @writers; waitpid $_, 0 for @writers; @writers = (); return }

# Bytes a second that come at each, read for so long.
sub rates {
	my ($seconds, @socks) = @_;
	my ($since, %got) = (time, map { fileno($_) => 0 } @socks);
	while ((my $left = $since + $seconds - time) > 0) {
		my $in = '';
		vec($in, fileno($_), 1) = 1 for @socks;
		select $in, undef, undef, $left;
		for my $s (grep { vec $in, fileno($_), 1 } @socks) {
			my $n = sysread $s, my $data, 262144;
			$got{ fileno $s } += $n // 0;
		}
	}
	my $took = time - $since;
	return map { $got{ fileno $_ } / $took } @socks;
}

sub sum { my $n = 0; $n += $_ for @_; return $n }

sub is_about {
	my ($got, $want, $percent, $what) = @_;
	return cmp_ok(abs($got - $want), '<=', $want * $percent / 100, sprintf '%s: %.2f of %.2f MB/s', $what, $got / 1e6, $want / 1e6);
}

for my $mode ('', 'copy_mode = true; ') {
	my $name = $mode ? 'copied' : 'spliced';
	my $p = proxy(workers => 2, token_timeout => 60, more => "${mode}bytes_per_second_per_operator = $limit;");
	my (@readers, @socks);
	for my $worker (0, 0, 0, 1) {
		my ($a, $b) = pair_at($p, 'hd-1', $worker);
		# Bytes of both directions count.
		my ($from, $to) = @readers % 2 ? ($b, $a) : ($a, $b);
		write_all($from);
		push @readers, $to;
		push @socks, $from;
	}
	my ($c, $d) = pair_at($p, 'hd-3', 1);
	rates(2, @readers);    # the parts settle
	my @got = rates(3, @readers);
	is_about(sum(@got), $limit, 20, "$name: four pairs at two workers");
	is_about($got[$_], $limit / 4, 40, "$name: pair $_") for 0 .. 3;

	# Another operator has a limit of its own, and its bytes come at once.
	my $since = time;
	send_all($c, 'x' x 200);
	is(length read_exactly($d, 200), 200, "$name: another operator's message comes");
	cmp_ok(time - $since, '<', slow_factor(), "$name: at once");
	write_all($c);
	my @both = rates(3, @readers, $d);
	is_about($both[4], $limit, 20, "$name: another operator beside them");
	is_about(sum(@both[0 .. 3]), $limit, 20, "$name: and they as before");

	# All at one worker: it gets all.
	stop_writers();
	close $_ for $socks[3], $readers[3], $c, $d;
	write_all($socks[$_]) for 0 .. 2;
	rates(2, @readers[0 .. 2]);
	is_about(sum(rates(3, @readers[0 .. 2])), $limit, 20, "$name: three pairs at one worker");
	stop_writers();
	close $_ for @socks[0 .. 2], @readers[0 .. 2];
	is($p->{d}->stop, 0, "$name: it stops cleanly");
	like($p->log_text, qr/ debug rate asker=\d+ worker=1 rate=\d+ /, "$name: the parts were told") or diag($p->{d}->log_tail);
}
hyper_done();
