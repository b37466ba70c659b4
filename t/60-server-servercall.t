#!/usr/bin/perl
# Guards: a peer that we did not write gets one request at a time, may answer late once, and cannot harm by wrong answers; ours get many.
use strict;
use warnings;
use GrpcTest;
use HyperMesh;
use HyperTest;
use Test::More;
use Time::HiRes qw(time);

need_python();
my $timeout = 3 * HyperTest::slow_factor(); # seconds
my $m = mesh(directory => 'json', start => 0, hyper => { 'public-proxy-1.ga' => "call_timeout = $timeout;\n" });
$m->start_one('ph');
my $peers = 0;

# A peer as `name`, ready and registered.
sub peer {
	my ($name, $announcement) = @_;
	my $before = $m->{ph}->count_log(qr/ registered operator=hd-2/);
	my $p = start('peer' . ++$peers, [ python('standing_peer.py'), certs(), $name, "localhost:$m->{port}{'ph.grpc'}", 'public-proxy-1.ga', json_text($announcement) ]);
	wait_until(sub { $m->{ph}->count_log(qr/ registered operator=hd-2/) > $before || $p->log_text =~ /"end"/ }, 10);
	return $p;
}

# One call of the proxy's own operator.
sub ask {
	my ($params, %opt) = @_;
	return rpc("https://public-proxy-1.ga:$m->{port}{'ph.rpc'}/jsonrpc", 'hd-2.echo', $params, cert => 'public-proxy-1.ga', %opt);
}

# Several at once, each in a process of its own: their answers in order.
sub ask_all {
	my @params = @_;
	my @pids = map {
		my $n = $_;
		my $pid = fork // die "fork: $!";
		if (!$pid) {
			write_file(tmp() . "/answer.$n", json_text(ask($params[$n])));
			POSIX::_exit(0);
		}
		$pid;
	} 0 .. $#params;
	waitpid $_, 0 for @pids;
	return map { json_value(read_file(tmp() . "/answer.$_")) } 0 .. $#params;
}
sub requests { return grep { $_->{case} eq 'request' } lines_of($_[0]->log_text) }
sub end_of {
	my ($p) = @_;
	wait_until(sub { $p->log_text =~ /"end"/ }, 10);
	my ($end) = grep { $_->{case} eq 'end' } lines_of($p->log_text);
	return $end->{status} // 'still open';
}

is_deeply(end_of(peer('hd-2', { no => 'name' })), [ 2, 'invalid client announcement' ], 'an announcement without a name');
is_deeply(end_of(peer('hd-2', { name => 7 })), [ 2, 'invalid client announcement' ], 'with a number');
is_deeply(end_of(peer('hd-2', { name => 'hd-1' })), [ 2, 'invalid client name supplied' ], 'with the name of another operator');
is(ask({})->{error}{code}, -32005, 'so hd-2 is not connected');

# A program of the reference: no "hyper" in its announcement.
my $p = peer('hd-2', { name => 'hd-2', unknown => { field => 1 } });
my $a = ask({ x => 1 });
is_deeply($a->{result}{got}{x}, 1, 'a request and its answer');
my ($seen) = requests($p);
my $from = delete $seen->{params}{_client};
is_deeply([ $from->{name}, $from->{entry}{name} ], [ ('public-proxy-1.ga') x 2 ], 'it is told who asks, with its entry');
is($seen->{client}, 'public-proxy-1.ga', 'clientName is the server');
is_deeply($seen->{params}, { x => 1 }, 'nothing of ours in the parameters');
is_deeply([ @{ ask({ do => 'error' })->{error} }{qw(code message)} ], [ 7, 'as asked' ], "the peer's own error passes through");

my $begin = time;
my @a = ask_all(map { { n => $_, after_ms => 300 } } 0 .. 3);
is_deeply([ map { $_->{result}{got}{n} } @a ], [ 0 .. 3 ], 'four at once: each its own answer');
cmp_ok(time - $begin, '>=', 1.2, 'one after the other');

# Late: the call ends at our deadline, the stream waits for the answer, then goes on.
my $n = requests($p);
@a = ask_all({ after_ms => 1300 * $timeout }, { n => 1, after_ms => 0 });
my ($late) = grep { $_->{error} } @a;
is($late->{error}{code}, -32003, 'an answer after the deadline: -32003');
$a = ask({ n => 5 });
is($a->{result}{got}{n}, 5, 'the next request is sent after the late answer came, and gets its own');
unlike($p->log_text, qr/"end"/, 'the stream lives');

# Never: after a second deadline it is dropped.
is(ask({ do => 'never' })->{error}{code}, -32003, 'no answer: -32003');
$a = ask({ n => 6 });
isnt($a->{error}, undef, 'nothing is sent while an answer is owed');
is((grep { ($_->{params}{n} // 0) == 6 } requests($p)), 0, 'the peer has not seen it');
is(end_of($p)->[0], 4, 'then the stream is dropped: DEADLINE_EXCEEDED');
is(ask({})->{error}{code}, -32005, 'and hd-2 is not connected');

# Wrong answers end the stream, not the program.
for my $do ('wrong id', 'garbage') {
	$p = peer('hd-2', { name => 'hd-2' });
	$begin = time;
	$a = ask({ do => $do });
	is($a->{error}{data}{reason}, 'reset', "$do: the call fails");
	cmp_ok(time - $begin, '<', 0.8 * $timeout, "$do: at once");
	is(end_of($p)->[0], 13, "$do: the stream is dropped");
}

# A program of ours: many at a time.
$p = peer('hd-2', { name => 'hd-2', hyper => { version => 1, parallel => 64 } });
$begin = time;
@a = ask_all(map { { n => $_, after_ms => 500 * HyperTest::slow_factor() } } 0 .. 5);
is_deeply([ map { $_->{result}{got}{n} } @a ], [ 0 .. 5 ], 'parallel: each its own answer');
cmp_ok(time - $begin, '<', 6 * 0.5 * HyperTest::slow_factor(), 'at the same time');
my @r = requests($p);
is_deeply($r[0]{params}{hyper}, { version => 1, parallel => 64 }, 'the first request says so');
is((grep { $_->{params}{hyper} } @r), 1, 'and no other');
$a = ask({ do => 'wrong id' });
is($a->{error}{code}, -32003, 'parallel: an answer nobody asked for is ignored, the call has its deadline');
is_deeply(ask({ n => 9 })->{result}{got}, { n => 9 }, 'and the stream goes on');
$p->signal('KILL');
ok($m->{ph}->wait_log(qr/ unregistered operator=hd-2 .*/, 5), 'a killed peer is unregistered');
is($m->{ph}->stop, 0, 'the server stops');
hyper_done();
