#!/usr/bin/perl
# Guards: one brokered connection serves many calls, needs no port of B, fails its calls once when it is lost and is then made again.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

# hd-2's directory address is a port that nobody listens on: whatever reaches it came through the proxy.
my $closed = free_port();
my $m = mesh(
	directory => 'json',
	start => 0,
	edit => sub {
		for my $r (@{ $_[0] }) {
			$r->{data}[1]{settings}{address} = "localhost:$closed" if $r->{name} eq 'hd-2' && $r->{section} eq 'channels';
			push @{ $r->{data} }, { name => 'more', permissions => [ { group => 'health-departments', rights => ['call'] } ],
				methods => [ map { { name => $_, permissions => [] } } qw(slow never fail) ] }
			    if $r->{name} eq 'hd-2' && $r->{section} eq 'services';
		}
	},
	hyper => { 'hd-1' => 'call_timeout = ' . 6 * HyperTest::slow_factor() . ";\n" });
my $echo = start('echo', [ build() . '/t/unit/rpc_echo', '--bind=localhost:0' ]);
$m->{opt}{service}{'hd-2'} = 'http://localhost:' . $echo->ready('port') . '/jsonrpc';
$m->write_all;
$m->start_one($_) for qw(proxy ph hd-2 hd-1);
ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 10), 'hd-2 has opened its standing stream');

sub pairs { return $m->{proxy}->count_log(qr/ pair session=/) }

# Twenty at once, before there is any connection.
my @children;
for my $n (1 .. 20) {
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		my $a = $m->call('hd-2.echo', { n => $n }, id => 'the same');
		POSIX::_exit(($a->{result}{n} // 0) == $n && $a->{id} eq 'the same' ? 0 : 1);
	}
	push @children, $pid;
}
my $wrong = 0;
for (@children) { waitpid $_, 0; $wrong++ if $? }
is($wrong, 0, 'twenty calls with one id at once: each got its own answer under its own id');
is(pairs(), 1, 'over one pair');

my $a;
$a = $m->ping for 1 .. 10;
is($a->{result}{params}{_client}{name}, 'hd-1', 'ten pings in a row');
is($a->{result}{serverInfo}{name}, 'hd-2', 'answered by hd-2');
is(pairs(), 1, 'still one pair');
is($m->{'hd-1'}->count_log(qr/ connected .*operator=public-proxy-1\.ga/), 1, 'and one connection to the proxy operator');

$a = $m->call('hd-2.fail');
is_deeply([ @{ $a->{error} }{qw(code message)}, $a->{http} ], [ 7, 'failed as asked', 400 ], "the service's own error passes through");
is_deeply($a->{error}{data}, { why => 'asked' }, 'with its data');
$a = $m->call('hd-2.nope');
is($a->{error}{code}, 403, 'a method that the directory does not name: 403');
is($a->{error}{message}, "Permission denied for method 'nope' and client 'hd-1'", 'in the words of the protocol');

$a = $m->call('hd-2.nope', { x => 'x' x (4194304 - 300) });
is($a->{error}{code}, 403, 'a call that is just below the limit of a message reaches hd-2, without _client') or diag(substr json_text($a), 0, 400);

$a = $m->call('hd-1._connections');
my ($c) = grep { $_->{operator} eq 'hd-2' } @{ $a->{result}{connections} };
is($c->{kind}, 'brokered', '_connections shows it');
is($c->{via}, 'public-proxy-1.ga', 'by whom');
cmp_ok($c->{calls}, '>=', 32, 'and its calls');
my $session = $c->{session};
for my $who (qw(hd-1 hd-2 proxy)) {
	ok($m->{$who}->count_log(qr/session=$session/), "$who logs the session of the brokering");
}
is($m->{ph}->count_log(qr/token=|"token"/) + $m->{'hd-1'}->count_log(qr/token=/) + $m->{'hd-2'}->count_log(qr/token=/), 0,
	'and nobody a token');

# hd-2 dies with a call on its connection.
my $pid = fork // die "fork: $!";
if (!$pid) {
	my $lost = $m->call('hd-2.never');
	write_file(tmp() . '/lost.json', json_text($lost));
	POSIX::_exit(0);
}
ok($echo->wait_log(qr/BODY>SERVING why="never"/, 5), 'a call is with the service');
my $begin = time;
$m->{'hd-2'}->signal('KILL');
waitpid $pid, 0;
my $lost = json_value(read_file(tmp() . '/lost.json'));
cmp_ok(time - $begin, '<', 4 * HyperTest::slow_factor(), 'it fails at once, not at its deadline');
like($lost->{error}{message}, qr/the connection to hd-2 was lost before it answered/, 'and says why');
is($lost->{error}{data}{reason}, 'reset', 'in one word too');

$m->{'hd-2'}->wait_exit(5);
$m->start_one('hd-2');
ok(wait_until(sub { $m->{ph}->count_log(qr/ registered .*operator=hd-2/) >= 2 }, 10), 'hd-2 is back');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'the next call makes a connection again');
is(pairs(), 2, 'a second pair');

# The deadline is ours, whoever sleeps.
$begin = time;
$a = $m->call('hd-2.never', {}, id => '9');
is($a->{error}{code}, -32003, 'a service that never answers: deadline');
cmp_ok(time - $begin, '<=', 7 * HyperTest::slow_factor(), 'within the call_timeout of 6 s');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'and the connection is still good');
is(pairs(), 2, 'the same pair');

# TERM with a call on its way: its caller is told.
$pid = fork // die "fork: $!";
if (!$pid) {
	write_file(tmp() . '/drained.json', json_text($m->call('hd-2.never', {}, id => 'ten')));
	POSIX::_exit(0);
}
ok($echo->wait_log(qr/conn=\d+ BODY>SERVING why="never"/, 5), 'a call is with the service');
ok(wait_until(sub { $echo->count_log(qr/BODY>SERVING why="never"/) == 3 }, 5), 'the third of this kind');
$begin = time;
is($m->{'hd-1'}->stop, 0, 'TERM ends the caller\'s server');
waitpid $pid, 0;
cmp_ok(time - $begin, '<', 3 * HyperTest::slow_factor(), 'soon');
my $drained = json_value(read_file(tmp() . '/drained.json'));
is($drained->{error}{code}, -32004, 'and the call is answered: draining') or diag json_text($drained);
$m->start_one('hd-1');

# What hd-1 leaves behind when it goes and comes back: nothing.
$m->ping;
my %fds = map { ($_ => $m->{$_}->fds) } qw(hd-2 ph proxy);
for (1 .. 3) {
	$m->{'hd-1'}->stop;
	$m->start_one('hd-1');
	is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'brokered anew');
}
for my $who (sort keys %fds) {
	ok(wait_until(sub { $m->{$who}->fds <= $fds{$who} }, 10), "$who: as many descriptors as before") or diag "$fds{$who}, now " . $m->{$who}->fds;
}
hyper_done();
