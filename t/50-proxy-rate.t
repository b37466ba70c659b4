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

sub is_near { my ($got, $want, $percent) = @_; return abs($got - $want) <= $want * $percent / 100 }
# The same until they are as they should be, in one look of a few: a busy machine may spoil one.
sub steady_rates {
	my ($good, @socks) = @_;
	my @got;
	wait_until { @got = rates(2, @socks); $good->(@got) } 12;
	return @got;
}
sub is_about {
	my ($got, $want, $percent, $what) = @_;
	return ok(is_near($got, $want, $percent), sprintf '%s: %.2f of %.2f MB/s', $what, $got / 1e6, $want / 1e6);
}

# Until all that these read is about the limit: the parts of the workers have settled.
sub settle {
	my (@groups) = @_;
	return wait_until {
		my @got = rates(0.5, map { @$_ } @groups);
		!grep { abs(sum(splice @got, 0, scalar @$_) - $limit) > $limit * 0.2 } @groups;
	} 10;
}

# Both ways to move bytes at the same time, each with a proxy of its own.
my @modes = map { { name => $_->[0], p => proxy(workers => 2, token_timeout => 60, more => "$_->[1]bytes_per_second_per_operator = $limit;") } }
	[ spliced => '' ], [ copied => 'copy_mode = true; ' ];

for my $m (@modes) {
	for my $worker (0, 0, 0, 1) {
		my ($a, $b) = pair_at($m->{p}, 'hd-1', $worker);
		# Bytes of both directions count.
		my ($from, $to) = @{ $m->{readers} // [] } % 2 ? ($b, $a) : ($a, $b);
		keep_writing($from);
		push @{ $m->{readers} }, $to;
		push @{ $m->{socks} }, $from;
	}
	@$m{qw(c d)} = pair_at($m->{p}, 'hd-3', 1);
}
ok(settle(map { $_->{readers} } @modes), 'the parts settle');
my @got = steady_rates(sub {
	my @g = @_;
	for (@modes) {
		my @own = splice @g, 0, 4;
		return 0 if !is_near(sum(@own), $limit, 20) || grep { !is_near($_, $limit / 4, 40) } @own;
	}
	return 1;
}, map { @{ $_->{readers} } } @modes);
for my $m (@modes) {
	my @own = splice @got, 0, 4;
	is_about(sum(@own), $limit, 20, "$m->{name}: four pairs at two workers");
	is_about($own[$_], $limit / 4, 40, "$m->{name}: pair $_") for 0 .. 3;

	# Another operator has a limit of its own, and its bytes come at once.
	my $since = time;
	send_all($m->{c}, 'x' x 200);
	is(length read_exactly($m->{d}, 200), 200, "$m->{name}: another operator's message comes");
	cmp_ok(time - $since, '<', slow_factor(), "$m->{name}: at once");
}
keep_writing($_->{c}) for @modes;
my @both = steady_rates(sub {
	my @g = @_;
	for (@modes) {
		my @own = splice @g, 0, 5;
		return 0 if !is_near($own[4], $limit, 20) || !is_near(sum(@own[ 0 .. 3 ]), $limit, 20);
	}
	return 1;
}, map { (@{ $_->{readers} }, $_->{d}) } @modes);
for my $m (@modes) {
	my @own = splice @both, 0, 5;
	is_about($own[4], $limit, 20, "$m->{name}: another operator beside them");
	is_about(sum(@own[0 .. 3]), $limit, 20, "$m->{name}: and they as before");
}

# All at one worker: it gets all.
stop_writers();
for my $m (@modes) {
	close $_ for $m->{socks}[3], $m->{readers}[3], $m->{c}, $m->{d};
	pop @{ $m->{$_} } for qw(socks readers);
}
keep_writing($_) for map { @{ $_->{socks} } } @modes; # now: they hold what is open when they begin
ok(settle(map { $_->{readers} } @modes), 'the parts settle again');
my @one = steady_rates(sub {
	my @g = @_;
	return !grep { !is_near(sum(splice @g, 0, 3), $limit, 20) } @modes;
}, map { @{ $_->{readers} } } @modes);
stop_writers();
for my $m (@modes) {
	is_about(sum(splice @one, 0, 3), $limit, 20, "$m->{name}: three pairs at one worker");
	close $_ for @{ $m->{socks} }, @{ $m->{readers} };
	is($m->{p}{d}->stop, 0, "$m->{name}: it stops cleanly");
	like($m->{p}->log_text, qr/ debug rate asker=\d+ worker=1 rate=\d+ /, "$m->{name}: the parts were told") or diag($m->{p}{d}->log_tail);
}
hyper_done();
