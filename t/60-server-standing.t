#!/usr/bin/perl
# Guards: a standing stream is back within seconds of its loss, the newest one counts, and what a stop leaves is nothing.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;
use Time::HiRes qw(time);

my $m = mesh(directory => 'json', hyper => { map { $_ => "reconnect_min = 0.05; reconnect_max = 1;\n" } qw(hd-1 hd-2) });
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'the path works');

# The proxy operator's hyper dies: 58 s of outage with the reference, not with us.
$m->{ph}->signal('KILL');
$m->{ph}->wait_exit(5);
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'a pooled connection does not need it');
ok($m->{'hd-2'}->wait_log(qr/ standing_lost .*operator=public-proxy-1\.ga/, 5), 'hd-2 has seen its stream end');
$m->start_one('ph');
my $begin = time;
ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 10), 'hd-2 registers again');
cmp_ok(time - $begin, '<', 3 * HyperTest::slow_factor(), 'soon');
$m->{'hd-1'}->stop;
$m->start_one('hd-1');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'and a new brokering goes through');

# hd-2 is started anew while its old stream still hangs: SIGSTOP leaves the TCP connection open.
my $old = $m->{'hd-2'};
$old->signal('STOP');
my $second = free_port();
my $rpc = free_port();
my $conf = read_file("$m->{dir}/hd-2/001.cfg");
$conf =~ s/localhost:$m->{port}{'hd-2.grpc'}/localhost:$second/;
$conf =~ s/localhost:$m->{port}{'hd-2.rpc'}"/localhost:$rpc"/g;
write_file("$m->{dir}/hd-2b/001.cfg", $conf);
my $new = start('hd-2b', [ program('hyper'), 'server', 'run' ], env => { HYPER_SETTINGS => "$m->{dir}/hd-2b" });
ok($m->{ph}->wait_log(qr/ registered operator=hd-2 .*replaces=1/, 10), 'the newer stream replaces the older one');
$old->signal('KILL');
$old->signal('CONT');
$old->wait_exit(5);
ok(wait_until(sub { $m->{ph}->count_log(qr/standing_in_state operator=hd-2 state=REPLACED>ENDED/) }, 5), 'the older one ends');
is($m->{ph}->count_log(qr/ unregistered operator=hd-2/), 0, 'without unregistering the newer one');
$m->{'hd-1'}->stop;
$m->start_one('hd-1');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'which is used');

# While the peer is away: ever longer waits, up to reconnect_max, each with jitter; then again at once after a good life.
{
	$m->{ph}->stop;
	my $hd = $m->{'hd-1'};
	my $waits = sub { return [ $hd->log_text =~ / standing_lost operator=public-proxy-1\.ga retry_ms=(\d+) /g ] };
	ok(wait_until(sub { @{ $waits->() } >= 8 }, 10), 'hd-1 tries again and again') or diag("@{ $waits->() }");
	my @w = @{ $waits->() };
	my $cap = 50;
	my @wrong = grep { my $low = $cap / 2; my $ok = $w[$_] >= $low && $w[$_] <= $cap; $cap = $cap * 2 > 1000 ? 1000 : $cap * 2; !$ok } 0 .. $#w;
	is("@wrong", '', 'each wait is between half and all of twice the last, at most reconnect_max') or diag("@w");
	$m->start_one('ph');
	ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 10), 'and both are back within it');
}

# A peer whose certificate left the directory: its stream is older than the change, and ends with the first request.
{
	my $file = "$m->{dir}/directory/002_certificates.json";
	my $before = read_file($file);
	my $replace = sub {
		my ($name) = @_;
		my $records = json_value($before);
		for my $r (@{ $records->{records} }) {
			$_->{fingerprint} =~ tr/0-9a-f/1-9a-f0/ for $r->{name} eq $name ? @{ $r->{data} } : ();
		}
		write_file($file, json_text($records));
	};
	my $told = sub { return $new->count_log(qr/ brokered side=b .*step=told/) };
	$m->{'hd-1'}->stop;
	$m->start_one('hd-1');
	is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'while it is pinned, it is told of requests');
	$m->{'hd-1'}->stop;
	my $n = $told->();
	$replace->('hd-2');
	$m->start_one('hd-1');
	my $e;
	ok(wait_until(sub { $e = $m->ping->{error}; $e && $e->{code} == -32005 }, 15), 'a connection to it is refused') or diag json_text($e);
	ok($m->{ph}->count_log(qr/ unregistered operator=hd-2 .*why="the directory pins another certificate now"/), 'its stream was ended');
	is($told->(), $n, 'and it was not told of the request');
	write_file($file, $before);
	ok(wait_until(sub { ($m->ping->{result}{serverInfo}{name} // '') eq 'hd-2' }, 15), 'until it is back');

	$replace->('public-proxy-1.ga');
	# a call of its own shows hd-2 the new directory
	my $asked = sub { rpc("https://hd-2:$rpc/jsonrpc", 'hd-2._ping', {}, cert => 'hd-2') };
	ok(wait_until(sub { $asked->(); $new->count_log(qr/ standing_lost operator=public-proxy-1\.ga .*why="its certificate is not the one that the directory pins"/) }, 15),
		'the other way round: the stream to a peer that lost its certificate ends, and no other one is opened');
	write_file($file, $before);
	ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 15), 'until it is back');
}

# HUP is answered, TERM ends cleanly and fast, calls in flight are told.
$m->{'hd-1'}->signal('HUP');
ok($m->{'hd-1'}->wait_log(qr/ info reloaded changed=0 needs_restart=0 /, 5), 'HUP: reloads');
for my $d ($m->{'hd-1'}, $new, $m->{ph}) {
	$begin = time;
	is($d->stop, 0, "$d->{name}: TERM ends it with 0");
	cmp_ok(time - $begin, '<', 4 * HyperTest::slow_factor(), "$d->{name}: soon");
}
hyper_done();
